"""From a record to a judgement, without a session: what fails, what is written, what is excused, word for word."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import pytest
from canned import failed, memory, passed, ran_out

from liveavatar_core.errors import BadData
from suites.harness.cases.tiers import Expectation
from suites.harness.pytest_plugin.options import Settings
from suites.harness.records.record import Failure, RunRecord
from suites.harness.verdicts.baselines import find_case, read_baseline
from suites.harness.verdicts.index import INDEX_FILE, read_index
from suites.harness.verdicts.judge import Judgement, judge, judgement_from_data, unwritten, write_baseline
from suites.harness.verdicts.verdict import Verdict, exit_code, worst

PASS = Expectation(outcome="pass", because="it fits")
OOM = Expectation(outcome="oom", phases=("encode",), category="unsharded_parameters", because="it does not fit")
WHERE = "gpu5x24/published_sharded on simulated cards"
KEY = "simulated-rtx4090x5/gpu5x24/published_sharded"
WAIVER = """
[[waiver]]
case = "gpu5x24/published_sharded"
machine = "simulated-rtx4090x5"
verdict = "{verdict}"
reason = "{verdict} is being looked at"
link = "https://example.org/1"
since = 2026-11-01
expires = 2026-11-30
"""


def settings(folder: Path, **changes) -> Settings:
    values = {"hardware": ("simulated",), "require_hardware": False, "tiers": (), "baseline_update": "no"}
    values |= {"baseline_compare": "fail", "baseline_reason": None, "history": None, "baseline_dir": folder}
    return Settings(report_dir=folder / "report", **(values | changes))


def judged(folder: Path, record: RunRecord, expected: Expectation = PASS, **changes) -> Judgement:
    return judge(record, expected, settings(folder, **changes))


@pytest.fixture
def reviewed(tmp_path: Path) -> Path:
    """Baselines of a pass at 20 GiB."""
    write_baseline(passed(), settings(tmp_path, baseline_update="all"))
    return tmp_path


def test_the_same_numbers_are_a_pass_of_which_nothing_is_said(reviewed: Path):
    assert judged(reviewed, passed()) == Judgement(verdict=Verdict.PASS)


def test_without_a_baseline_a_pass_says_so_and_fails_where_one_is_required(tmp_path: Path):
    free, required, hardware = (
        judged(tmp_path, passed(), **changes)
        for changes in ({}, {"require_baselines": True}, {"require_hardware": True})
    )
    assert {each.verdict for each in (free, required, hardware)} == {Verdict.NEEDS_BASELINE}
    assert (free.failing, required.failing, hardware.failing) == (False, True, True)
    assert (free.explanation, required.explanation.count("\n")) == ("", 1)


def test_what_got_worse_fails_and_is_explained_in_two_lines(reviewed: Path):
    judgement = judged(reviewed, passed(peak=21.0))
    assert (judgement.verdict, judgement.failing, judgement.update) == (Verdict.REGRESSED, True, False)
    first, second = judgement.explanation.splitlines()
    assert first == f"regressed: {WHERE}: peak_vram_gib 21 against 20 (+5.0%); 0.02 allowed"
    assert second.startswith("next: look at what is not committed")


def test_a_warning_names_what_got_worse_and_fails_nothing(reviewed: Path):
    judgement = judged(reviewed, passed(peak=21.0), baseline_compare="warn")
    assert (judgement.verdict, judgement.failing) == (Verdict.REGRESSED, False)


def test_not_comparing_says_so_but_for_an_update(reviewed: Path):
    assert judged(reviewed, passed(peak=21.0), baseline_compare="off") == Judgement(verdict=Verdict.NOT_COMPARED)
    updating = judged(reviewed, passed(peak=19.0), baseline_compare="off", baseline_update="all")
    assert updating.verdict is Verdict.UPDATED


@pytest.mark.parametrize("compare", ["fail", "warn", "off"])
@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        (passed(peak=22.5), Verdict.OVER_LIMIT),
        (passed(memory=passed().memory[:2]), Verdict.MISSING_METRIC),
        (passed(memory=(*passed().memory[:3], memory(1, "denoise", None))), Verdict.MISSING_METRIC),
        (passed(expected_phases={}), Verdict.MISSING_METRIC),
        (passed(quality={"nan_blocks_count": 1.0}), Verdict.INVALID_METRIC),
        (passed(quality={"nan_blocks_count": float("nan")}), Verdict.INVALID_METRIC),
        (failed("hang"), Verdict.OUTCOME_CHANGED),
        (ran_out(tier="gpu5x24"), Verdict.OUTCOME_CHANGED),
        (failed("infrastructure"), Verdict.INFRASTRUCTURE),
    ],
)
def test_what_a_run_shows_by_itself_fails_however_it_is_compared(reviewed: Path, record, verdict, compare):
    for update in ("no", "new-only", "all"):
        judgement = judged(reviewed, record, baseline_compare=compare, baseline_update=update, baseline_reason="why")
        assert (judgement.verdict, judgement.failing, judgement.update) == (verdict, True, False)


def test_an_update_says_which_values_move_and_where(reviewed: Path):
    judgement = judged(reviewed, passed(peak=19.0), baseline_update="all")
    path = reviewed / "simulated-rtx4090x5/gpu5x24.toml"
    assert (judgement.verdict, judgement.failing, judgement.update) == (Verdict.UPDATED, False, True)
    [found] = judgement.findings
    assert found.what == f"{WHERE}, {path}: peak_vram_gib 20 -> 19"
    assert found.next_step == f"review it: git diff {path}"


def test_all_that_moves_is_named_and_that_nothing_moved(reviewed: Path):
    seconds = replace(passed().timing, predicted_seconds_per_clip=8.0)
    [found] = judged(reviewed, passed(peak=19.0, timing=seconds), baseline_update="all").findings
    assert found.what.endswith(": peak_vram_gib 20 -> 19, predicted_seconds_per_clip 8.125 -> 8")
    before = passed(hardware="physical", timing=replace(seconds, comparable=True, clip_seconds=(5.0, 5.0, 5.0),
                                                        first_frame_seconds=1.0))  # fmt: skip
    write_baseline(before, settings(reviewed, baseline_update="all"))
    wider = replace(before, timing=replace(before.timing, clip_seconds=(4.9, 5.0, 5.1)))
    judgement = judged(reviewed, wider, baseline_update="all")
    assert judgement.findings[-1].what.endswith(": no value moved")
    assert (judgement.update, judgement.failing) == (True, False)


def test_an_update_that_moves_nothing_is_a_pass(reviewed: Path):
    for update in ("all", "new-only"):
        assert judged(reviewed, passed(commit="2f0c2ab"), baseline_update=update) == Judgement(verdict=Verdict.PASS)


def test_an_update_with_a_worse_value_takes_a_reason(reviewed: Path):
    refused = judged(reviewed, passed(peak=21.0), baseline_update="all")
    assert (refused.verdict, refused.failing, refused.update) == (Verdict.REGRESSED, True, False)
    assert f"{WHERE}: no baseline written: peak_vram_gib 20 -> 21" in refused.explanation
    assert "next: give --baseline-reason" in refused.explanation
    taken = judged(reviewed, passed(peak=21.0), baseline_update="all", baseline_reason="a larger cache")
    assert (taken.verdict, taken.update) == (Verdict.UPDATED, True)


def test_what_nobody_could_measure_again_is_refused_under_its_own_name(reviewed: Path):
    judgement = judged(reviewed, passed(peak=19.0, commit="1f0c2ab+"), baseline_update="all")
    assert (judgement.verdict, judgement.failing) == (Verdict.UPDATE_REFUSED, True)
    assert "no baseline written: " in judgement.explanation
    assert judgement.explanation.endswith("next: commit them, then measure")


def test_new_only_takes_what_is_new_and_leaves_the_rest_judged(reviewed: Path):
    more = passed(quality={"psnr_db": 40.0})
    judgement = judged(reviewed, more, baseline_update="new-only")
    assert (judgement.verdict, judgement.update) == (Verdict.UPDATED, True)
    assert judgement.findings[-1].what.endswith(": psnr_db none -> 40")
    worse = judged(reviewed, passed(peak=21.0, quality={"psnr_db": 40.0}), baseline_update="new-only")
    assert (worse.verdict, worse.failing, worse.update) == (Verdict.REGRESSED, True, False)
    better = judged(reviewed, passed(peak=19.0, quality={"psnr_db": 40.0}), baseline_update="new-only")
    assert (better.verdict, better.failing) == (Verdict.UPDATED, False)
    assert [each.verdict for each in better.findings] == [Verdict.IMPROVED, Verdict.UPDATED]


def test_an_update_never_replaces_what_is_lost(reviewed: Path):
    (reviewed / "simulated-rtx4090x5/gpu5x24.toml").unlink()
    assert not judged(reviewed, passed()).failing
    assert judged(reviewed, passed(), require_baselines=True).failing
    for update in ("all", "new-only"):
        judgement = judged(reviewed, passed(peak=21.0), baseline_update=update, baseline_reason="why")
        assert (judgement.verdict, judgement.failing, judgement.update) == (Verdict.LOST_BASELINE, True, False)


def test_what_is_written_is_what_was_announced(reviewed: Path):
    path = reviewed / "simulated-rtx4090x5/gpu5x24.toml"
    before = path.read_bytes(), (reviewed / INDEX_FILE).read_bytes()
    write_baseline(passed(), settings(reviewed, baseline_update="all"))
    assert (path.read_bytes(), (reviewed / INDEX_FILE).read_bytes()) == before
    write_baseline(passed(peak=19.0, quality={"psnr_db": 40.0}), settings(reviewed, baseline_update="new-only"))
    assert read_index(reviewed)[KEY] == (
        "load_vram_gib",
        "peak_vram_gib",
        "predicted_seconds_per_clip",
        "psnr_db",
    )
    assert find_case(reviewed, passed()).metrics["peak_vram_gib"].value == 20.0
    write_baseline(passed(peak=21.0), settings(reviewed, baseline_update="all", baseline_reason="a larger cache"))
    case = read_baseline(path).cases["published_sharded"]
    assert case.metrics["peak_vram_gib"].value == 21.0
    assert [line.rpartition(": ")[2] for line in case.history] == ["a larger cache"] * 2, "one was lost, too"
    assert "psnr_db" not in read_index(reviewed)[KEY]


def waive(folder: Path, *verdicts: str) -> None:
    (folder / "waivers.toml").write_text("".join(WAIVER.format(verdict=verdict) for verdict in verdicts))


def test_a_waiver_excuses_its_failure_and_says_why(reviewed: Path):
    waive(reviewed, "regressed")
    judgement = judged(reviewed, passed(peak=21.0))
    assert (judgement.verdict, judgement.failing) == (Verdict.REGRESSED, False)
    assert judgement.waived == "regressed is being looked at (https://example.org/1, until 2026-11-30)"
    assert judged(reviewed, passed()).waived is None
    assert judged(reviewed, passed(peak=21.0), baseline_compare="warn").waived is None, "it did not fail"


def test_every_kind_of_failure_takes_a_waiver_of_its_own(reviewed: Path):
    path = reviewed / "simulated-rtx4090x5/gpu5x24.toml"
    path.write_text(path.read_text().replace("limit = 22.15", "limit = 20.5"))
    worse = passed(peak=21.0, timing=replace(passed().timing, predicted_seconds_per_clip=9.0))
    for verdicts, failing in ((("regressed",), True), (("over-limit",), True), (("over-limit", "regressed"), False)):
        waive(reviewed, *verdicts)
        judgement = judged(reviewed, worse)
        assert (judgement.failing, judgement.waived is None) == (failing, failing)
    until = "is being looked at (https://example.org/1, until 2026-11-30)"
    assert judgement.waived == f"over-limit {until}; regressed {until}"


@pytest.mark.parametrize("changes", [{"date": date(2026, 12, 1)}, {"case": "published_sharded2"}])
def test_a_waiver_that_is_over_or_of_another_case_excuses_nothing(reviewed: Path, changes):
    write_baseline(passed(case="published_sharded2"), settings(reviewed, baseline_update="all"))
    waive(reviewed, "regressed")
    assert judged(reviewed, passed(peak=21.0, **changes)).failing


def test_a_broken_file_of_waivers_is_named_only_where_one_is_asked(reviewed: Path):
    (reviewed / "waivers.toml").write_text("waiver = 1")
    assert not judged(reviewed, passed()).failing
    with pytest.raises(BadData, match=r"waivers\.toml"):
        judged(reviewed, passed(peak=21.0))


def test_a_judgement_survives_its_document(reviewed: Path):
    waive(reviewed, "regressed")
    judgement = judged(reviewed, passed(peak=21.0))
    assert judgement_from_data(json.loads(json.dumps(asdict(judgement)))) == judgement


def test_a_run_whose_record_could_not_be_written_fails_and_becomes_no_baseline(reviewed: Path):
    updating = judged(reviewed, passed(peak=19.0), baseline_update="all")
    lost = unwritten(updating, BadData("report: no room on the disk", "make room"))
    assert (lost.verdict, lost.failing, lost.update) == (Verdict.INFRASTRUCTURE, True, False)
    assert lost.explanation == "infrastructure: report: no room on the disk\nnext: make room"
    assert lost.findings[0] in updating.findings


SAID = [
    (passed(), OOM, "it fits now, and was expected to run out of memory", "promote this tier: set outcome = "),
    (
        ran_out(tier="gpu5x24"),
        PASS,
        "rank 0 ran out of memory in encode, 3.26 GiB short, and was expected to pass",
        "ask for a layout that fits: python -m liveavatar_core fit --cards COUNTxSIZE",
    ),
    (
        ran_out(tier="gpu5x24", category="activations"),
        OOM,
        "ran out of memory for activations in encode, not for unsharded_parameters in encode",
        "see why",
    ),
    (
        ran_out(tier="gpu5x24", phase="denoise"),
        replace(OOM, phases=("encode", "prefill")),
        "ran out of memory for unsharded_parameters in denoise, not for unsharded_parameters in encode or prefill",
        "see why",
    ),
    (
        failed("crash"),
        OOM,
        "ended in crash (rank 1 ended in crash), and oom was expected",
        "read the rank's output in the report directory",
    ),
    (
        passed(outcome="infrastructure", failure=Failure(message="cards are busy", next_step="wait"), memory=()),
        PASS,
        "the machine, not the run, failed: cards are busy",
        "wait",
    ),
]


@pytest.mark.parametrize(("record", "expected", "what", "step"), SAID, ids=lambda value: str(value)[:20])
def test_how_a_run_ended_is_said_against_what_its_tier_says(tmp_path: Path, record, expected, what, step):
    [found] = judged(tmp_path, record, expected).findings
    assert found.what == f"{WHERE}: {what}"
    assert found.next_step.startswith(step)


def test_the_promotion_of_a_tier_names_the_place():
    [found] = judge(passed(), OOM, settings(Path())).findings
    assert found.next_step == (
        'promote this tier: set outcome = "pass" for gpu5x24.cases.published_sharded in its tiers file'
    )


def test_a_shortage_of_unknown_size_is_said_without_one(tmp_path: Path):
    unknown = replace(ran_out().out_of_memory, requested=None)
    [found] = judged(tmp_path, ran_out(tier="gpu5x24", out_of_memory=unknown)).findings
    assert found.what == f"{WHERE}: rank 0 ran out of memory in encode, and was expected to pass"


def test_control_characters_of_what_was_found_move_no_cursor(tmp_path: Path):
    failure = Failure(message="a\x1b[2J\u202e", next_step="b\x00")
    judgement = judged(tmp_path, passed(outcome="crash", failure=failure, memory=()))
    assert "(a\\x1b[2J\\x202e)" in judgement.explanation
    assert judgement.explanation.endswith("next: b\\x00")


def test_the_worst_of_nothing_is_a_pass_and_mixed_failures_share_no_status():
    assert worst([]) is Verdict.PASS
    assert worst([Verdict.IMPROVED, Verdict.REGRESSED, Verdict.UPDATED]) is Verdict.REGRESSED
    assert [exit_code(each) for each in ([Verdict.REGRESSED] * 2, [Verdict.REGRESSED, Verdict.OVER_LIMIT])] == [10, 1]
