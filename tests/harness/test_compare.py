"""What counts as a change, and what is thought of it."""

import math
from dataclasses import replace

import pytest
from canned import failed, memory, passed, physical, ran_out

from suites.harness.cases.tiers import Expectation
from suites.harness.records.measurements import Timing
from suites.harness.verdicts.baseline_update import updated_case
from suites.harness.verdicts.compare import compare
from suites.harness.verdicts.measured import metrics
from suites.harness.verdicts.metrics import metric_kind
from suites.harness.verdicts.verdict import EXIT_CODES, Verdict, exit_code, judge_outcome, worst

OOM = Expectation(outcome="oom", phases=("encode", "prefill"), category="unsharded_parameters", because="b")
PASS = Expectation(outcome="pass", because="b")


def verdicts(record, baseline_record):
    baseline = updated_case(None, baseline_record, None)
    return {finding.metric: finding.verdict for finding in compare(record, baseline)}


def test_the_same_numbers_leave_nothing_to_say():
    for record in (passed(), ran_out(), physical(clips=(22.0, 22.4))):
        assert verdicts(record, record) == {}


def test_without_a_baseline_there_is_nothing_to_compare_with():
    assert [finding.verdict for finding in compare(passed(), None)] == [Verdict.NEEDS_BASELINE]


@pytest.mark.parametrize(
    ("peak", "expected"),
    [(20.015, None), (20.05, Verdict.REGRESSED), (19.95, Verdict.IMPROVED), (22.16, Verdict.OVER_LIMIT)],
)
def test_simulated_memory_may_move_by_a_thousandth(peak, expected):
    assert verdicts(passed(peak=peak), passed(peak=20.0)).get("peak_vram_gib") is expected


@pytest.mark.parametrize(("change", "expected"), [(0.3, None), (0.45, Verdict.REGRESSED)])
def test_real_memory_must_exceed_both_tolerances(change, expected):
    """2 % of 20 GiB is 0.4: 0.3 GiB more exceeds the absolute tolerance alone."""
    before, after = physical(clips=(22.0,), peak=20.0), physical(clips=(22.0,), peak=20.0 + change)
    assert verdicts(after, before).get("peak_vram_gib") is expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((22.0, 22.1, 22.2), (24.0, 24.1, 24.2), Verdict.REGRESSED),
        ((22.0, 22.1, 22.2), (20.0, 20.1, 20.2), Verdict.IMPROVED),
        ((20.0, 22.1, 28.0), (21.0, 24.1, 29.0), Verdict.INCONCLUSIVE),
        ((22.0, 22.1, 22.2), (22.9, 23.0, 23.1), None),
    ],
)
def test_seconds_regress_where_the_middle_halves_are_disjoint(before, after, expected):
    found = verdicts(physical(clips=after), physical(clips=before))
    assert found.get("seconds_per_clip") is expected


def test_seconds_of_imitated_cards_are_not_compared():
    record = passed(timing=Timing(clip_seconds=(22.0,), comparable=False))
    assert "seconds_per_clip" not in metrics(record)


def test_a_metric_without_a_reading_is_missing_not_passed():
    unread = passed(memory=(memory(0, "load", 17.2), memory(0, "denoise", None)))
    assert verdicts(unread, passed())["peak_vram_gib"] is Verdict.MISSING_METRIC
    assert verdicts(passed(), passed(quality={"latent_cosine": 0.99}))["latent_cosine"] is Verdict.MISSING_METRIC
    assert verdicts(physical(clips=()), physical(clips=(1.0,)))["seconds_per_clip"] is Verdict.MISSING_METRIC


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_no_number_is_invalid_with_and_without_baseline(value):
    bad = passed(quality={"latent_cosine": value})
    for baseline in (passed(quality={"latent_cosine": 0.99}), passed()):
        assert verdicts(bad, baseline)["latent_cosine"] is Verdict.INVALID_METRIC


def test_a_new_metric_needs_a_baseline():
    found = verdicts(passed(quality={"latent_cosine": 0.99}), passed())
    assert found == {"latent_cosine": Verdict.NEEDS_BASELINE}


def test_less_likeness_is_worse_and_less_drift_is_better():
    assert (metric_kind("latent_cosine").better, metric_kind("drift_per_clip").better) == ("higher", "lower")
    before = passed(quality={"latent_cosine": 0.99, "drift_per_clip": 0.5})
    after = passed(quality={"latent_cosine": 0.80, "drift_per_clip": 0.3})
    assert verdicts(after, before) == {
        "latent_cosine": Verdict.REGRESSED,
        "drift_per_clip": Verdict.IMPROVED,
    }


def test_numbers_of_another_recipe_are_not_compared():
    other = replace(passed(peak=22.0), recipe=replace(passed().recipe, hash="00000000"))
    assert verdicts(other, passed()) == {None: Verdict.RECIPE_CHANGED}


def test_a_limit_holds_whatever_was_declared():
    baseline = updated_case(None, passed(), None)
    peak = replace(baseline.metrics["peak_vram_gib"], limit=21.0)
    baseline = replace(baseline, recipe="00000000", metrics=baseline.metrics | {"peak_vram_gib": peak})
    found = [finding.verdict for finding in compare(passed(peak=22.0), baseline)]
    assert found == [Verdict.RECIPE_CHANGED, Verdict.OVER_LIMIT]


def test_a_value_in_another_unit_is_no_improvement_and_no_regression():
    for bytes_for_gib in (20.0 * 1024**3, 20_480.0):
        record = passed(peak=20.0, quality={"host_peak_gib": bytes_for_gib})
        assert verdicts(record, passed(quality={"host_peak_gib": 30.0}))["host_peak_gib"] is Verdict.INVALID_METRIC


def test_another_outcome_or_phase_is_a_changed_outcome():
    assert verdicts(ran_out(), passed()) == {None: Verdict.OUTCOME_CHANGED}
    assert verdicts(ran_out(phase="prefill"), ran_out(phase="encode")) == {None: Verdict.OUTCOME_CHANGED}


def test_a_run_that_crashed_has_no_metrics():
    assert metrics(failed("crash")) == {}


def test_the_peak_of_a_run_that_ran_out_is_not_gated():
    assert set(metrics(ran_out())) == {"load_vram_gib", "oom_requested_gib", "oom_shortfall_gib"}


def test_an_expected_lack_of_memory_passes_with_its_numbers():
    assert judge_outcome(ran_out(), OOM) is None
    assert judge_outcome(passed(), PASS) is None


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (passed(), "it fits now"),
        (ran_out(phase="load"), "in load"),
        (ran_out(category="kv_cache"), "for kv_cache"),
        *((failed(outcome), outcome) for outcome in ("host-oom", "unsupported", "hang", "crash")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_lack_of_memory_is_expected_nothing_else_will_do(record, words):
    finding = judge_outcome(record, OOM)
    assert finding.verdict is Verdict.OUTCOME_CHANGED
    assert words in finding.what
    assert len(str(finding).split("\nnext: ")) == 2


def test_a_tier_that_fits_now_is_to_be_promoted():
    assert "promote this tier" in judge_outcome(passed(), OOM).next_step


def test_lack_of_memory_where_a_pass_is_expected_tells_by_how_much():
    assert "3.26 GiB short" in judge_outcome(ran_out(), PASS).what


@pytest.mark.parametrize("expected", [OOM, PASS])
def test_trouble_of_the_machine_is_never_the_runs_fault(expected):
    assert judge_outcome(failed("infrastructure"), expected).verdict is Verdict.INFRASTRUCTURE


def test_exit_codes_tell_failures_of_one_kind_apart():
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert all(10 <= code < 30 for code in EXIT_CODES.values())
    assert exit_code([Verdict.REGRESSED, Verdict.REGRESSED]) == EXIT_CODES[Verdict.REGRESSED]
    assert exit_code([Verdict.REGRESSED, Verdict.OVER_LIMIT]) == 1


def test_the_gravest_verdict_leads():
    assert worst([Verdict.IMPROVED, Verdict.INVALID_METRIC, Verdict.REGRESSED]) is Verdict.INVALID_METRIC
    assert worst([]) is Verdict.PASS


def test_what_can_be_off_to_both_sides_gets_better_towards_0():
    assert metric_kind("lip_sync_lag_ms").better == "nearer to 0"
    early, late, exact = (passed(quality={"lip_sync_lag_ms": lag}) for lag in (-80.0, 80.0, 0.0))
    assert verdicts(early, exact) == verdicts(late, exact) == {"lip_sync_lag_ms": Verdict.REGRESSED}
    assert verdicts(exact, early) == verdicts(exact, late) == {"lip_sync_lag_ms": Verdict.IMPROVED}
    assert verdicts(late, early) == {"lip_sync_lag_ms": Verdict.REGRESSED}, "as far off, but otherwise"


def test_advice_is_not_gated():
    assert verdicts(passed(quality={"ssim": 0.2}), passed(quality={"ssim": 0.9})) == {}


def test_quality_without_a_number_says_why():
    silent = passed(quality_missing={"lip_sync_lag_ms": "the sound is silent"})
    assert verdicts(silent, passed()) == {}
    found = compare(silent, updated_case(None, passed(quality={"lip_sync_lag_ms": 0.0}), None))
    assert [(each.verdict, "the sound is silent" in each.what) for each in found] == [(Verdict.MISSING_METRIC, True)]
