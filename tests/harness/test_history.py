"""Nightly series: a value that falls out of ten earlier ones is reported; fewer say nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from canned import passed, physical
from lab import said

from liveavatar_core.errors import BadData
from suites.harness.records.history import POINTS, append_history, outliers, read_history
from suites.harness.records.measurements import CardConditions
from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

pytest_plugins = ["pytester"]
SECONDS = (20.0, 20.4, 19.8, 20.2, 20.0, 20.1, 19.9, 20.3, 20.2, 20.0)


def nights(count: int):
    return [physical(clips=(seconds,)) for seconds in SECONDS[:count]]


@pytest.mark.parametrize(("seconds", "reported"), [(20.7, False), (22.0, True), (15.0, False)])
def test_ten_earlier_values_make_a_fence_for_worse_ones(seconds, reported):
    found = list(outliers(physical(clips=(seconds,)), nights(POINTS)))
    assert [("seconds_per_clip 22" in text, text.count("\n")) for text in found] == [(True, 1)] * reported


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


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"verdict": "pass"}', "\udcff"])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "history.jsonl"
    append_history(path, [(passed(), Verdict.PASS)])
    path.write_bytes(path.read_bytes() + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(BadData, match=r"history\.jsonl"):
        read_history(path)


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
        (passed(commit="1f0c2ab+"), "the working tree had changes"),
        (
            passed(card_conditions=CardConditions(slowed_by=("power cap", "hardware thermal slowdown"))),
            "hardware thermal slowdown",
        ),
    ],
)
def test_an_update_refuses_what_nobody_could_measure_again(lab, record, named):
    lab.put(record)
    assert named in " ".join(said(lab.run("--baseline-update")).split())
    assert not lab.files


def test_a_power_cap_is_no_reason_to_refuse(lab):
    lab.put(passed(card_conditions=CardConditions(slowed_by=("power cap",))))
    assert lab.run("--baseline-update").ret == 0
    assert lab.files
