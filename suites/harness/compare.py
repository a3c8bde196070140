"""A run record against its baseline: what moved, and whether that is more than noise."""

from __future__ import annotations

import math

from suites.harness.baseline import CaseBaseline, MetricBaseline, rounded
from suites.harness.measures import Metric, metrics
from suites.harness.record import RunRecord
from suites.harness.stats import disjoint
from suites.harness.verdict import Finding, Verdict


def compare(record: RunRecord, baseline: CaseBaseline | None) -> list[Finding]:
    """Everything that differs; empty if nothing does beyond the tolerances.

    `record` must have ended as its tier expects. Numbers of another recipe or outcome are not looked at.
    """
    where = f"{record.tier}/{record.case} on {record.hardware} cards"
    update = f"pytest -m {record.tier} --hardware={record.hardware} --baseline-update"
    if baseline is None:
        found = Verdict.NEEDS_BASELINE, "nothing to compare with on this machine", f"{update}-new-only"
    elif baseline.recipe != record.recipe.hash:
        what = f"recipe {record.recipe.hash} against {baseline.recipe}: other inputs were declared"
        found = Verdict.RECIPE_CHANGED, what, f"undo the change of the recipe, or {update}"
    elif _ending(record) != (baseline.outcome, baseline.phase):
        what = f"{_words(_ending(record))} against {_words((baseline.outcome, baseline.phase))}"
        found = Verdict.OUTCOME_CHANGED, what, f"find the commit that moved it, or {update}"
    else:
        return _compare_metrics(record, baseline, where, update)
    return [Finding(verdict=found[0], what=f"{where}: {found[1]}", next_step=found[2])]


def _compare_metrics(record: RunRecord, baseline: CaseBaseline, where: str, update: str) -> list[Finding]:
    measured = metrics(record)
    found = []
    for name in sorted(measured.keys() | baseline.metrics.keys()):
        metric = measured.get(name) or Metric(name=name, samples=(), reason="the run has no such metric")
        result = compare_metric(metric, baseline.metrics.get(name), update)
        if result is not None:
            verdict, what, step = result
            found.append(Finding(verdict=verdict, what=f"{where}: {name} {what}", next_step=step, metric=name))
    return found


def compare_metric(metric: Metric, baseline: MetricBaseline | None, update: str) -> tuple[Verdict, str, str] | None:
    """Verdict, what and next step (`update`: the command that takes it over); None if nothing is to be said.

    A change counts where it exceeds the relative and the absolute tolerance; it is believed where the middle
    halves of both samples are disjoint. A limit holds without tolerance.
    """
    value = rounded(metric.name, metric.value)
    if not metric.samples:
        return (
            Verdict.MISSING_METRIC,
            f"is missing: {metric.reason}",
            "measure it, or delete its baseline line",
        )
    if not math.isfinite(value):
        return Verdict.INVALID_METRIC, f"is {value}", "find out why: no number may be NaN or infinite"
    if baseline is None:
        return Verdict.NEEDS_BASELINE, f"{value:g} has no baseline", f"{update}-new-only"
    if baseline.limit is not None and value > baseline.limit:
        return Verdict.OVER_LIMIT, f"{value:g} against a limit of {baseline.limit:g}", "make it smaller"
    return _change(metric, value, baseline, update)


def _change(metric: Metric, value: float, baseline: MetricBaseline, update: str) -> tuple[Verdict, str, str] | None:
    change = value - baseline.value
    allowed = max(baseline.rel * abs(baseline.value), baseline.abs)
    if abs(change) <= allowed:
        return None
    share = f" ({change / baseline.value:+.1%})" if baseline.value else ""
    what = f"{value:g} against {baseline.value:g}{share}; {allowed:.3g} may differ"
    if not disjoint(metric.summary, baseline.summary):
        return (
            Verdict.INCONCLUSIVE,
            f"{what}, and the samples overlap",
            "measure more clips on a quiet machine",
        )
    if (change < 0) == (metric.better == "lower"):
        return Verdict.IMPROVED, what, update
    return Verdict.REGRESSED, what, f'find the commit, or {update} --baseline-reason "why this is right"'


def _ending(record: RunRecord) -> tuple[str, str | None]:
    return record.outcome, record.out_of_memory.phase if record.out_of_memory else None


def _words(ending: tuple[str, str | None]) -> str:
    outcome, phase = ending
    return f"outcome {outcome}" + (f" in {phase}" if phase else "")
