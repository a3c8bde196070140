"""What people read of a difference, word for word, and what lies exactly on a bound."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from canned import passed, physical, ran_out

from suites.harness.verdicts.baseline_update import updated_case
from suites.harness.verdicts.baselines import CaseBaseline, MetricBaseline
from suites.harness.verdicts.compare import RESTORE, compare, judge_change, suspects
from suites.harness.verdicts.reasons import allowed_creep, change_text, changes_of, next_best, what_got_worse
from suites.harness.verdicts.stats import Summary, summarise
from suites.harness.verdicts.verdict import Verdict
from suites.harness.verdicts.waivers import Waiver, read_waivers

WHERE = "gpu5x24/published_sharded on simulated cards"
UPDATE = "pytest -m gpu5x24 --hardware=simulated --baseline-update"
BASELINE = updated_case(None, passed(quality={"latent_cosine": 0.99}), None)
GOOD = {"latent_cosine": 0.99}


def changed(**parts) -> CaseBaseline:
    return replace(BASELINE, **parts)


def limited(limit: float) -> CaseBaseline:
    peak = replace(BASELINE.metrics["peak_vram_gib"], limit=limit)
    return changed(metrics=BASELINE.metrics | {"peak_vram_gib": peak})


LISTED = tuple(BASELINE.metrics)
SAID = [
    (passed(), None, None, "needs-baseline", "nothing to compare with on this machine", f"{UPDATE}-new-only"),
    (passed(), None, LISTED, "lost-baseline", "its baseline was there and is gone", RESTORE),
    (
        passed(quality=GOOD),
        changed(recipe="00000000"),
        None,
        "recipe-changed",
        "recipe 9c41e07b against 00000000: other inputs were declared",
        f"undo the change of the recipe, or {UPDATE}",
    ),
    (
        passed(),
        changed(recipe="00000000"),
        None,
        "recipe-changed",
        "recipe 9c41e07b against 00000000: other inputs were declared; lost with it: latent_cosine",
        f"undo the change of the recipe, or {UPDATE}",
    ),
    (
        replace(ran_out(), tier="gpu5x24"),
        BASELINE,
        None,
        "outcome-changed",
        "outcome oom in encode against outcome pass",
        f"look at what is not committed: git diff 1f0c2ab, or {UPDATE}",
    ),
    (
        passed(),
        BASELINE,
        None,
        "missing-metric",
        "latent_cosine is missing: the run has no such metric",
        "measure it, or delete its baseline line",
    ),
    (
        passed(quality={"latent_cosine": float("nan")}),
        BASELINE,
        None,
        "invalid-metric",
        "latent_cosine is nan",
        "find out why: no number may be NaN or infinite",
    ),
    (
        passed(quality=GOOD | {"host_peak_gib": 2048.0}),
        BASELINE,
        None,
        "invalid-metric",
        "host_peak_gib is 2048, and more than 1024 GiB is in another unit",
        "measure it in the unit of its name",
    ),
    (
        passed(quality=GOOD | {"psnr_db": 40.0}),
        BASELINE,
        None,
        "needs-baseline",
        "psnr_db 40 has no baseline",
        f"{UPDATE}-new-only",
    ),
    (
        passed(quality=GOOD | {"psnr_db": 40.0}),
        BASELINE,
        (*LISTED, "psnr_db"),
        "lost-baseline",
        "psnr_db had a baseline, and it is gone",
        RESTORE,
    ),
    (
        passed(quality=GOOD),
        limited(19.5),
        None,
        "over-limit",
        "peak_vram_gib 20 against a limit of 19.5",
        "make it smaller",
    ),
    (
        passed(peak=21.0, quality=GOOD),
        BASELINE,
        None,
        "regressed",
        "peak_vram_gib 21 against 20 (+5.0%); 0.02 allowed",
        f'look at what is not committed: git diff 1f0c2ab, or {UPDATE} --baseline-reason "why this is right"',
    ),
    (
        passed(peak=19.0, quality=GOOD),
        BASELINE,
        LISTED,
        "improved",
        "peak_vram_gib 19 against 20 (-5.0%); 0.02 allowed",
        UPDATE,
    ),
]


@pytest.mark.parametrize(("record", "baseline", "listed", "verdict", "what", "step"), SAID)
def test_each_difference_is_said_so(record, baseline, listed, verdict, what, step):
    [found] = compare(record, baseline, listed)
    assert (found.verdict, found.what, found.next_step) == (verdict, f"{WHERE}: {what}", step)
    named = what.split(" ")[0]
    assert found.metric == (named if "_" in named else None)


def test_overlapping_samples_are_said_to_overlap():
    baseline = updated_case(None, physical(clips=(20.0, 22.1, 28.0)), None)
    [found] = compare(physical(clips=(21.0, 24.1, 29.0)), baseline)
    assert found.what.endswith("seconds_per_clip 24.1 against 22.1 (+9.0%); 1.11 allowed, and the samples overlap")
    assert found.next_step == "measure more clips on a quiet machine"


def test_a_limit_that_a_changed_recipe_exceeds_is_said_beside_the_change():
    first, second = compare(passed(quality=GOOD), replace(limited(19.5), recipe="00000000"))
    assert first.verdict is Verdict.RECIPE_CHANGED
    assert (second.verdict, second.metric, second.next_step) == (Verdict.OVER_LIMIT, "peak_vram_gib", "make it smaller")
    assert second.what == f"{WHERE}: peak_vram_gib 20 against a limit of 19.5"


def test_all_that_is_lost_is_said():
    fewer = changed(metrics={"load_vram_gib": BASELINE.metrics["load_vram_gib"]})
    found = compare(passed(quality=GOOD), fewer, LISTED)
    assert [each.metric for each in found] == ["latent_cosine", "peak_vram_gib", "predicted_seconds_per_clip"]


def test_exactly_the_limit_is_within_it():
    assert compare(passed(quality=GOOD), limited(20.0)) == []


def entry(**values) -> MetricBaseline:
    return MetricBaseline(**({"value": 20.0, "rel": 0.0, "abs": 0.0} | values))


@pytest.mark.parametrize(("value", "verdict"), [(20.5, Verdict.PASS), (20.500001, Verdict.REGRESSED)])
def test_exactly_the_tolerance_is_within_it(value, verdict):
    assert judge_change("psnr_db_error", Summary(value=value, spread=0.0, n=1), entry(abs=0.5)) is verdict


def test_samples_that_touch_overlap():
    touching = Summary(value=22.0, spread=2.0, n=3)
    assert judge_change("seconds", touching, entry(spread=2.0)) is Verdict.INCONCLUSIVE
    apart = replace(touching, value=22.001)
    assert judge_change("seconds", apart, entry(spread=2.0)) is Verdict.REGRESSED


@pytest.mark.parametrize(
    ("values", "allowed"),
    [({"rel": 0.1}, 2.0), ({"rel": 0.1, "best": 10.0}, 1.0), ({"abs": 0.7}, 0.7), ({"spread": 0.3}, 0.3)],
    ids=str,
)
def test_how_far_small_steps_may_go(values, allowed):
    assert allowed_creep(entry(**values)) == pytest.approx(allowed)


@pytest.mark.parametrize(
    ("value", "explained", "best"),
    [(20.0, False, None), (20.5, False, 20.0), (19.5, False, None), (20.5, True, None), (22.0, False, 20.0)],
)
def test_from_where_small_steps_are_counted(value, explained, best):
    assert next_best("seconds", entry(), value, explained=explained) == best


@pytest.mark.parametrize(("value", "needs"), [(20.25, False), (20.250001, True)])
def test_exactly_as_far_as_small_steps_may_go_needs_no_reason(value, needs):
    old = replace(BASELINE, metrics={"x_seconds": entry(value=20.125, best=20.0, spread=0.125, abs=0.25)})
    fresh = replace(BASELINE, metrics={"x_seconds": entry(value=value)})
    assert bool(what_got_worse(old, fresh)) is needs


WAIVER = {"case": "a/b", "machine": "m", "verdict": "regressed", "reason": "r", "link": "l"}
TODAY = date(2026, 11, 20)


@pytest.mark.parametrize(("days", "good"), [(0, True), (90, True), (91, False), (-1, False)])
def test_a_waiver_holds_a_day_at_least_and_90_days_later_at_most(days, good):
    values = WAIVER | {"since": TODAY, "expires": TODAY + timedelta(days=days)}
    if good:
        assert Waiver(**values).expires == TODAY + timedelta(days=days)
    else:
        with pytest.raises(ValueError, match="a waiver ends within 90 days of its first"):
            Waiver(**values)


def test_without_a_file_there_are_no_waivers_and_a_broken_one_is_named(tmp_path):
    path = tmp_path / "waivers.toml"
    assert read_waivers(path) == ()
    path.write_text('[[waiver]]\ncase = "a/b"\n')
    with pytest.raises(Exception, match=r"waivers\.toml\.waiver\[0\]: key 'machine' is missing"):
        read_waivers(path)


def test_several_lost_metrics_are_said_in_a_row():
    both = updated_case(None, passed(quality=GOOD | {"psnr_db": 40.0}), None)
    [found] = compare(passed(), replace(both, recipe="00000000"))
    assert found.what.endswith("; lost with it: latent_cosine, psnr_db")


def test_a_value_that_was_0_changes_by_no_share():
    baseline = updated_case(None, passed(quality={"black_frames_share": 0.0}), None)
    [found] = compare(passed(quality={"black_frames_share": 0.1}), baseline)
    assert found.what == f"{WHERE}: black_frames_share 0.1 against 0; 0.005 allowed"


def test_a_value_is_judged_as_baselines_keep_it():
    """20.0200004 GiB are 20.02, which the tolerance of a thousandth lets through."""
    assert compare(passed(peak=20.0200004, quality=GOOD), BASELINE) == []


def test_nothing_has_no_median():
    with pytest.raises(ValueError, match=r"^no samples$"):
        summarise(())


def test_changes_are_named_as_histories_name_them():
    worse = what_got_worse(BASELINE, replace(BASELINE, outcome="oom", phase="encode"))
    assert worse == {"outcome": "outcome pass -> oom"}
    assert change_text("peak_vram_gib.limit", 22.15, None) == "peak_vram_gib.limit 22.15 -> none"
    assert change_text("n", 1, 2.5) == "n 1 -> 2.5"


def test_every_value_that_an_update_moves_is_named():
    assert changes_of(None, BASELINE) == [
        "latent_cosine none -> 0.99",
        "load_vram_gib none -> 17.2",
        "peak_vram_gib none -> 20",
        "predicted_seconds_per_clip none -> 8.125",
    ]
    assert changes_of(BASELINE, BASELINE) == []
    peak, load = (BASELINE.metrics[name] for name in ("peak_vram_gib", "load_vram_gib"))
    metrics = {"peak_vram_gib": replace(peak, value=21.0), "psnr_db": replace(peak, value=40.0), "load_vram_gib": load}
    other = changed(outcome="oom", phase="encode", recipe="00000000", metrics=metrics)
    assert changes_of(BASELINE, other) == [
        "outcome pass -> oom",
        "recipe 9c41e07b -> 00000000",
        "latent_cosine 0.99 -> lost",
        "peak_vram_gib 20 -> 21",
        "predicted_seconds_per_clip 8.125 -> lost",
        "psnr_db none -> 40",
    ]


def test_commits_are_named_without_the_mark_of_changes():
    base = changed(measured=replace(BASELINE.measured, commit="abcdef0+"))
    assert suspects(base, passed(commit="bbbbbbb+")).startswith(
        "find the commit: git log --oneline abcdef0..bbbbbbb -- "
    )
    assert suspects(base, passed(commit=None)).startswith("find the commit: git log --oneline abcdef0..HEAD -- ")


@pytest.mark.parametrize("changes", [{"verdict": "outcome-changed"}, {"outcome": "crash"}], ids=str)
def test_an_outcome_belongs_to_a_changed_outcome(changes):
    days = {"since": TODAY, "expires": TODAY}
    with pytest.raises(ValueError, match=r"^outcome belongs to verdict outcome-changed, and to it alone$"):
        Waiver(**(WAIVER | days | changes))
    assert Waiver(**(WAIVER | days | {"verdict": "outcome-changed", "outcome": "crash"})).outcome == "crash"


@pytest.mark.parametrize(
    ("commit", "said"),
    [
        ("abcdef0", "find the commit: git log --oneline 1f0c2ab..abcdef0 -- liveavatar_core suites "),
        ("abcdef0+", "find the commit: git log --oneline 1f0c2ab..abcdef0 -- liveavatar_core suites "),
        (None, "find the commit: git log --oneline 1f0c2ab..HEAD -- liveavatar_core suites "),
        ("1f0c2ab+", "look at what is not committed: git diff 1f0c2ab, or "),
    ],
)
def test_a_value_that_got_worse_comes_with_the_line_that_finds_the_commit(commit, said):
    (found,) = compare(passed(peak=21.0, quality=GOOD, commit=commit), BASELINE)
    assert found.next_step.startswith(said)
    assert found.next_step.endswith(f'{UPDATE} --baseline-reason "why this is right"')
