"""Nightly series: a value that falls out of ten earlier ones is reported; fewer say nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from canned import passed, physical
from lab import said

from suites.harness.records.history import (
    POINTS,
    append_history,
    fence,
    mend_history,
    outliers,
    read_history,
    same_series,
)
from suites.harness.records.measurements import CardConditions
from suites.harness.records.record import SCHEMA, Failure
from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

pytest_plugins = ["pytester"]
SECONDS = (20.0, 20.4, 19.8, 20.2, 20.0, 20.1, 19.9, 20.3, 20.2, 20.0)


def nights(count: int):
    return [physical(clips=(seconds,)) for seconds in SECONDS[:count]]


@pytest.mark.parametrize(("seconds", "reported"), [(20.7, False), (22.0, True), (15.0, False)])
def test_ten_earlier_values_make_a_fence_for_worse_ones(seconds, reported):
    found = list(outliers(physical(clips=(seconds,)), nights(POINTS)))
    assert [("seconds_per_clip 22" in text, text.count("\n")) for text in found] == [(True, 1)] * reported


def test_a_fence_is_three_times_as_wide_as_the_middle_half():
    assert fence([float(value) for value in range(1, 9)]) == (2.75 - 3 * 3.5, 6.25 + 3 * 3.5)


def test_what_falls_out_is_said_word_for_word():
    [text] = outliers(physical(clips=(22.0,)), nights(POINTS))
    low, high = fence(list(SECONDS))
    assert text == (
        "gpu5x24/published_sharded on physical cards: seconds_per_clip 22 lies outside of"
        f" {low:g} to {high:g}, the fence of 10 earlier runs\n"
        "next: compare the commits since, and the machine's temperature and neighbours"
    )


def test_a_metric_of_too_few_earlier_runs_hides_none_behind_it():
    """Sorted by name, the new metric comes first; runs that lack it do not count for it, nor hide the next one."""
    first = {"clip_jump_ratio": 1.0}
    earlier = [replace(each, quality=first if at == 0 else {}) for at, each in enumerate(nights(POINTS))]
    found = list(outliers(physical(clips=(22.0,), quality={"clip_jump_ratio": 9.0}), earlier))
    assert [text.split(": ")[1].split()[0] for text in found] == ["seconds_per_clip"]


def test_two_of_one_machine_are_of_one_series_whatever_the_order_of_its_facts():
    night = physical(clips=(22.0,))
    assert len(same_series(night, nights(POINTS))) == POINTS
    assert same_series(replace(night, outcome="crash", failure=Failure(message="x")), nights(POINTS)) == []


def test_what_was_set_aside_before_stays_there(tmp_path):
    path, aside = tmp_path / "history.jsonl", tmp_path / "history.jsonl.torn"
    for count, line in ((1, "{"), (2, "[]")):
        path.write_text(f"{line}\n{line}\n" if count == 2 else f"{line}\n")
        [notice] = mend_history(path)
        assert notice.startswith(f"{path}: {count} line{'s' if count > 1 else ''} could not be read")
    assert aside.read_text() == "{\n[]\n[]\n"


def test_nine_earlier_values_make_none():
    assert not list(outliers(physical(clips=(99.0,)), nights(POINTS - 1)))


def test_runs_of_another_machine_or_recipe_are_another_series():
    night = physical(clips=(99.0,))
    other_machine = replace(night, machine=replace(night.machine, driver="580.1"))
    other_recipe = replace(night, recipe=replace(night.recipe, hash="00000000"))
    assert list(outliers(night, nights(POINTS)))
    assert not list(outliers(other_machine, nights(POINTS)))
    assert not list(outliers(other_recipe, nights(POINTS)))


def test_a_history_reads_back(tmp_path):
    path = tmp_path / "history.jsonl"
    assert read_history(path) == []
    for record in nights(2):
        append_history(path, [(record, Verdict.PASS)])
    assert read_history(path) == nights(2)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"verdict": "pass"}', "\udcff", "[" * 9999, '{"verdict": 1} x'])
def test_a_broken_line_is_set_aside_and_the_rest_is_read(tmp_path, line):
    path = tmp_path / "history.jsonl"
    append_history(path, [(passed(), Verdict.PASS)])
    path.write_bytes(path.read_bytes() + line.encode(errors="surrogateescape") + b"\n")
    append_history(path, [(passed(peak=19.0), Verdict.PASS)])
    assert read_history(path) == [passed(), passed(peak=19.0)]
    [notice] = mend_history(path)
    assert "could not be read and went to history.jsonl.torn\nnext: " in notice
    assert read_history(path) == [passed(), passed(peak=19.0)]
    assert mend_history(path) == []
    assert (tmp_path / "history.jsonl.torn").read_text().strip()


def test_a_missing_last_newline_glues_nothing_together(tmp_path):
    path = tmp_path / "history.jsonl"
    append_history(path, [(passed(), Verdict.PASS)])
    path.write_bytes(path.read_bytes()[:-1])
    append_history(path, [(passed(peak=19.0), Verdict.PASS)])
    assert read_history(path) == [passed(), passed(peak=19.0)]
    assert len(path.read_text().splitlines()) == 2


def test_records_that_were_glued_together_are_told_apart(tmp_path):
    path = tmp_path / "history.jsonl"
    append_history(path, [(passed(), Verdict.PASS), (passed(peak=19.0), Verdict.PASS)])
    path.write_text(path.read_text().replace("\n", ""))
    assert read_history(path) == [passed(), passed(peak=19.0)]


def test_a_record_cut_in_the_middle_costs_only_itself(tmp_path):
    path = tmp_path / "history.jsonl"
    append_history(path, [(passed(), Verdict.PASS)])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    append_history(path, [(passed(peak=19.0), Verdict.PASS)])
    mend_history(path)
    assert read_history(path) == [passed(), passed(peak=19.0)]


def test_records_of_an_earlier_schema_stay_where_they_are(tmp_path):
    path = tmp_path / "history.jsonl"
    append_history(path, [(passed(), Verdict.PASS)])
    earlier = path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 1')
    path.write_text(earlier)
    append_history(path, [(passed(), Verdict.PASS)])
    assert read_history(path) == [passed()]
    assert mend_history(path) == []
    assert path.read_text().startswith(earlier)


def test_nights_go_on_after_a_torn_line(lab):
    path = lab.folder / "history.jsonl"
    append_history(path, [(passed(peak=20.0), Verdict.PASS)] * POINTS)
    path.write_text(path.read_text()[:-100])
    lab.put(passed(peak=20.0))
    result = lab.run("--history", str(path))
    assert result.ret == 0
    assert "1 line could not be read and went to history.jsonl.torn" in " ".join(said(result).split())
    assert len(read_history(path)) == POINTS


def test_a_session_reports_what_falls_out_and_keeps_it(lab):
    path = lab.folder / "history.jsonl"
    append_history(path, [(passed(peak=20.0), Verdict.PASS)] * POINTS)
    lab.put(passed(peak=21.0))
    assert "peak_vram_gib 21 lies outside of 20 to 20" in " ".join(said(lab.run("--history", str(path))).split())
    assert len(path.read_text().splitlines()) == POINTS + 1


def test_a_number_without_a_baseline_fails_where_hardware_is_required(lab):
    lab.offer("physical")
    lab.put(physical(clips=(20.0,)))
    result = lab.run("--require-hardware")
    assert result.ret == EXIT_CODES[Verdict.NEEDS_BASELINE]
    assert "nothing to compare with on this machine" in said(result)


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (passed(commit="1f0c2ab+"), "code, assets or versions had changes"),
        (
            passed(card_conditions=CardConditions(slowed_by=("power cap", "hardware thermal slowdown"))),
            "hardware thermal slowdown",
        ),
    ],
)
def test_an_update_refuses_what_nobody_could_measure_again(lab, record, named):
    lab.put(record)
    result = lab.run("--baseline-update")
    assert result.ret == EXIT_CODES[Verdict.UPDATE_REFUSED]
    assert named in " ".join(said(result).split())
    assert "regressed" not in said(result)
    assert not lab.files


def test_a_power_cap_is_no_reason_to_refuse(lab):
    lab.put(passed(card_conditions=CardConditions(slowed_by=("power cap",))))
    assert lab.run("--baseline-update").ret == 0
    assert lab.files
