"""Nightly series: a value that falls out of ten earlier ones is reported; fewer say nothing."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import pytest
from canned import passed, physical
from lab import said

from suites.harness.pytest_plugin.plugin import BAD_INPUT
from suites.harness.records.history import (
    POINTS,
    HistoryEntry,
    fence,
    keep,
    outliers,
    read_history,
    series_of,
    unreadable_files,
)
from suites.harness.records.measurements import CardConditions
from suites.harness.records.record import Failure, RunRecord
from suites.harness.report import html_trends
from suites.harness.verdicts.measured import metrics
from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

pytest_plugins = ["pytester"]
SECONDS = (20.0, 20.4, 19.8, 20.2, 20.0, 20.1, 19.9, 20.3, 20.2, 20.0)


def nights(count: int):
    return [entry(physical(clips=(seconds,)), day) for day, seconds in enumerate(SECONDS[:count], 1)]


def entry(record: RunRecord, day: int) -> HistoryEntry:
    return HistoryEntry.of(record, Verdict.PASS, datetime(2026, 11, day, 2, 17, tzinfo=UTC))


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
    first, *others = nights(POINTS)
    earlier = [replace(first, metrics={"clip_jump_ratio": 1.0, **first.metrics}), *others]
    found = list(outliers(physical(clips=(22.0,), quality={"clip_jump_ratio": 9.0}), earlier))
    assert [text.split(": ")[1].split()[0] for text in found] == ["seconds_per_clip"]


def test_nine_earlier_values_make_none():
    assert not list(outliers(physical(clips=(99.0,)), nights(POINTS - 1)))


def test_runs_of_another_machine_or_recipe_are_another_series(tmp_path):
    night = physical(clips=(99.0,))
    for each in nights(POINTS):
        keep(tmp_path, each)
    other_machine = replace(night, machine=replace(night.machine, driver="580.1"))
    other_recipe = replace(night, recipe=replace(night.recipe, hash="00000000"))
    crashed = replace(night, outcome="crash", failure=Failure(message="x"))
    assert list(outliers(night, series_of(tmp_path, night)))
    assert [series_of(tmp_path, each) for each in (other_machine, other_recipe, crashed)] == [[], [], []]


def test_a_history_reads_back_oldest_first(tmp_path):
    for day, record in ((2, passed(peak=19.0)), (1, passed())):
        keep(tmp_path, entry(record, day))
    assert [each.metrics["peak_vram_gib"] for each in series_of(tmp_path, passed())] == [
        metrics(each)["peak_vram_gib"].value for each in (passed(), passed(peak=19.0))
    ]
    assert unreadable_files(tmp_path) == []


def test_a_run_takes_a_small_file_of_its_own(tmp_path):
    """Many machines write at the same moment."""
    moment = entry(passed(), 1)
    with ThreadPoolExecutor(8) as threads:
        paths = set(threads.map(lambda _: keep(tmp_path, moment), range(40)))
    assert len(paths) == len(read_history(tmp_path)[0]) == 40
    assert all(path.stat().st_size < 2000 for path in paths)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', "\udcff", "[" * 9999, '{"schema": 1} x'])
def test_a_broken_file_is_named_and_the_rest_is_read(tmp_path, text):
    path = keep(tmp_path, entry(passed(), 1))
    path.with_name("gpu5x24.torn.json").write_bytes(text.encode(errors="surrogateescape"))
    assert len(read_history(tmp_path)[0]) == 1
    [notice] = unreadable_files(tmp_path)
    assert "1 file could not be read: gpu5x24.torn.json\nnext: " in notice


def test_entries_of_another_schema_are_not_guessed_at(tmp_path):
    path = keep(tmp_path, replace(entry(passed(), 1), schema=2))
    assert read_history(tmp_path) == ([], [path])


def test_numbers_that_are_none_are_not_kept():
    assert "seconds_per_clip" not in entry(physical(clips=(math.nan,)), 1).metrics


def test_thousands_of_files_are_read_by_duckdb(tmp_path):
    """As docs/lab-machine.md says."""
    for day, seconds in enumerate(SECONDS, 1):
        keep(tmp_path, entry(physical(clips=(seconds,)), day))
    command = "select tier, kept_at, metrics.seconds_per_clip from read_json('{}/*/*.json') order by kept_at"
    rows = duckdb.sql(command.format(tmp_path)).fetchall()
    assert [row[2] for row in rows] == list(SECONDS)


def test_a_history_that_is_a_file_is_refused_before_anything_runs(lab):
    path = lab.folder / "history.jsonl"
    path.write_text("")
    result = lab.run_apart("--history", str(path))
    assert result.ret == BAD_INPUT
    assert "no folder can be written there\nnext: give --history another folder" in result.stderr.str()


def test_a_session_reports_what_falls_out_and_keeps_it(lab):
    folder = lab.folder / "history"
    for day in range(1, POINTS + 1):
        keep(folder, entry(passed(peak=20.0), day))
    lab.put(passed(peak=21.0))
    result = lab.run("--history", str(folder))
    assert "peak_vram_gib 21 lies outside of 20 to 20" in " ".join(said(result).split())
    assert len(read_history(folder)[0]) == POINTS + 1


def test_a_history_becomes_a_page(tmp_path, capsys):
    assert html_trends.main([str(tmp_path), str(tmp_path / "page.html")]) == 2
    assert "holds no history\nnext: " in capsys.readouterr().err
    for day, seconds in enumerate((*SECONDS, 30.0), 1):
        keep(tmp_path, entry(physical(clips=(seconds,)), day))
    assert html_trends.main([str(tmp_path), str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "11 runs from 2026-11-01 to 2026-11-11" in page
    assert "OUTSIDE the fence" in page


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
