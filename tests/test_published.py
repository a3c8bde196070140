"""Published figures: every row is settled, and our value decides what is said of it."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "harness"))
from canned import failed, memory, passed, ran_out

from suites.harness.records.measurements import Timing
from suites.published import claims_table as table
from suites.published import evidence, figures
from suites.published.check_claims import answer
from suites.published.figures import ClaimCheck, Figure, read_claim_checks, read_figures
from suites.published.measurements import READINGS

FIGURES, SETTLEMENTS = read_figures(), read_claim_checks()
TESTABLE = {name: row for name, row in SETTLEMENTS.items() if row.run is not None}


def numbers(value=20.0, **changes):
    return Figure(**({"id": "x", "source": (1,), "claim": "so much", "value": value, "unit": "GB"} | changes))


def settled(reading="peak_gib", verdict="agree", **changes):
    return ClaimCheck(verdict=verdict, because="of this", run="gpu5x24.published_sharded", reading=reading, **changes)


def say(figure, settlement, record, other=None):
    runs = iter((record, other))
    return answer(figure, settlement, lambda run, mode: next(runs))


def test_there_is_a_row_for_every_figure_and_a_reason_for_every_row():
    assert FIGURES.keys() == SETTLEMENTS.keys()
    assert len(FIGURES) == 35
    assert all(len(row.because) > 10 for row in SETTLEMENTS.values())


@pytest.mark.parametrize("row", TESTABLE.values(), ids=TESTABLE)
def test_what_a_row_names_is_there(row):
    assert row.reading in (*READINGS, "outcome", "growth")
    for run in filter(None, (row.run, row.against)):
        tier, case = figures.find_run(run)
        assert tier.recipe(case).deployment.num_cards == tier.cards


def test_contradicting_rows_are_both_judged():
    assert {SETTLEMENTS[name].verdict for name in ("pass-5x24", "fail-5x24")} == {"agree"}
    assert SETTLEMENTS["pass-5x24"].run != SETTLEMENTS["fail-5x24"].run


@pytest.mark.parametrize(
    ("peak", "verdict"), [(20.5, "agree"), (19.5, "agree"), (21.0, "disagree"), (19.0, "disagree")]
)
def test_a_number_agrees_within_three_percent(peak, verdict):
    found = say(numbers(), settled(), passed(peak=peak))
    assert (found.verdict, found.ours, found.mode) == (verdict, f"{peak:.4g} GB", "simulated")
    assert found.as_settled == (verdict == "agree")


@pytest.mark.parametrize(("published", "verdict"), [(8.0, "disagree"), (9.0, "agree")])
def test_a_ceiling_is_one(published, verdict):
    settlement = settled("seconds_per_clip", bound="at most")
    assert say(numbers(published), settlement, passed()).verdict == verdict


def test_a_video_takes_its_clips_times_as_long():
    assert say(numbers(812.5), settled("seconds_per_clip", clips=100), passed()).verdict == "agree"


@pytest.mark.parametrize(("interval", "verdict"), [((3.0, 5.0), "disagree"), ((19.0, 21.0), "agree")])
def test_an_interval_holds_both_ends(interval, verdict):
    assert say(numbers(None, range=interval), settled(), passed(peak=20.0)).verdict == verdict


@pytest.mark.parametrize("record", [ran_out(), failed("hang")])
def test_a_run_that_never_came_to_the_number_disagrees_and_says_why(record):
    found = say(numbers(), settled(), record)
    assert found.verdict == "disagree"
    assert "GiB for unsharded_parameters" in found.ours or "hang" in found.ours


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        (ran_out(), "agree"),
        (ran_out(category="activations"), "disagree"),
        (passed(), "disagree"),
        (failed("crash"), "disagree"),
    ],
)
def test_only_running_out_in_a_gather_is_the_published_out_of_memory(record, verdict):
    figure = numbers(None, outcome="oom", phase="unshard")
    assert say(figure, settled("outcome"), record).verdict == verdict


@pytest.mark.parametrize(("more", "verdict"), [(20.1, "agree"), (21.0, "disagree")])
def test_flat_means_flat(more, verdict):
    figure = numbers(None, outcome="flat")
    assert (
        say(
            figure, settled("growth", against="gpu5x24.published_sharded"), passed(peak=more), passed(peak=20.0)
        ).verdict
        == verdict
    )


def test_readings_of_a_shortage():
    record = ran_out()
    assert READINGS["requested_gib"](record) == pytest.approx(3.9)
    assert READINGS["needed_gib"](record) == pytest.approx(22.15 - 0.64 + 3.9)
    assert READINGS["load_share"](record) == pytest.approx(17.2 / 24)
    assert READINGS["all_cards_load_gib"](record) == pytest.approx(2 * 17.2)
    assert READINGS["peak_gib"](record) is None


def test_readings_of_a_run():
    caches = replace(memory(0, "denoise", 20.0), by_category={"kv_cache": 8 * 2**30, "activations": 2**30})
    recipe = replace(passed().recipe, declared={"clip": {"sample_steps": 4, "infer_frames": 50}})
    timing = Timing(predicted_seconds_per_clip=25.0, least_communication_share=0.5)
    record = passed(memory=(caches, memory(1, "denoise", 19.0)), recipe=recipe, timing=timing)
    values = {name: READINGS[name](record) for name in READINGS}
    assert values["kv_cache_per_step_gib"] == 2
    assert values["kv_cache_and_activations_gib"] == 9
    assert values["last_card_peak_gib"] == 19
    assert (values["seconds_per_clip"], values["seconds_per_frame"]) == (25, 0.5)
    assert values["least_communication_share"] == 0.5


@pytest.fixture
def report_dir(tmp_path, monkeypatch):
    """Records of commit 1f0c2ab, which is the one at hand."""
    monkeypatch.setattr(evidence, "provenance", lambda: {"commit": "1f0c2ab"})
    tier, case = figures.find_run("gpu5x24.published_sharded")
    recipe = replace(passed().recipe, hash=tier.recipe(case).hash)
    passed(recipe=recipe, peak=20.0).write(tmp_path)
    return tmp_path


def test_records_of_this_commit_are_used(report_dir, capsys):
    assert table.main(["peak-5x24-dit", "--report-dir", str(report_dir)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 published figures: 1 agree, 0 disagree, 0 not testable; 1 not as settled"
    assert lines[2] == "peak-5x24-dit: agree, and claim_checks.toml says disagree"
    assert lines[3] == "  published 20.1 GB, ours 20 GB (simulated)"


@pytest.mark.parametrize("commit", ["2f0c2ab", "1f0c2ab+", None])
def test_records_of_another_commit_are_not(report_dir, monkeypatch, commit):
    monkeypatch.setattr(evidence, "provenance", lambda: {"commit": commit})
    monkeypatch.setattr(evidence.Evidence, "_run", lambda self, tier, case, mode: f"run {tier.name}.{case.name}")
    assert evidence.Evidence(report_dir)("gpu5x24.published_sharded", "simulated") == "run gpu5x24.published_sharded"


def test_markdown_keeps_its_columns(report_dir, capsys):
    assert table.main(["usable-vram-24gb", "paper-5xh800", "--markdown", "--report-dir", str(report_dir)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {7}


def test_a_figure_that_is_not_there(capsys):
    assert table.main(["nothing"]) == 2
    assert "there is no figure 'nothing'\nnext: figures: usable-vram-24gb" in capsys.readouterr().err
