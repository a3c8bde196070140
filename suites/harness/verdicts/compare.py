"""A run record against its baseline: what moved, and whether that is more than noise."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace

from suites.harness.records.record import RunRecord
from suites.harness.records.working_tree import MEASURED
from suites.harness.verdicts.baselines import CaseBaseline, MetricBaseline
from suites.harness.verdicts.measured import Metric, metrics
from suites.harness.verdicts.metrics import metric_kind, worsening
from suites.harness.verdicts.stats import Summary, disjoint
from suites.harness.verdicts.verdict import Finding, Verdict

RESTORE = "restore it from version control, or drop it on purpose: delete it from baselines/index.toml too"


def compare(record: RunRecord, baseline: CaseBaseline | None, listed: Collection[str] | None = None) -> list[Finding]:
    """Everything that differs; empty if nothing does beyond the tolerances.

    `record` must have ended as its tier expects. Numbers of another recipe or outcome are not looked at.

    Args:
        record: the run.
        baseline: of the same case and machine; None: there is none.
        listed: metrics of which the index says that they have a baseline; None: it does not know the case.
    """
    where = f"{record.tier}/{record.case} on {record.hardware} cards"
    update = f"pytest -m {record.tier} --hardware={record.hardware} --baseline-update"
    if baseline is None and listed is not None:
        found = Verdict.LOST_BASELINE, "its baseline was there and is gone", RESTORE
    elif baseline is None:
        found = Verdict.NEEDS_BASELINE, "nothing to compare with on this machine", f"{update}-new-only"
    elif baseline.recipe != record.recipe.hash:
        what = f"recipe {record.recipe.hash} against {baseline.recipe}: other inputs were declared"
        what += _lost(record, baseline)
        found = Verdict.RECIPE_CHANGED, what, f"undo the change of the recipe, or {update}"
    elif _ending(record) != (baseline.outcome, baseline.phase):
        what = f"{_words(_ending(record))} against {_words((baseline.outcome, baseline.phase))}"
        found = Verdict.OUTCOME_CHANGED, what, f"{suspects(baseline, record)}, or {update}"
    else:
        return _compare_metrics(record, baseline, frozenset(listed or ()), where, update)
    first = Finding(verdict=found[0], what=f"{where}: {found[1]}", next_step=found[2])
    return [first, *(_over_limits(record, baseline, where, update) if baseline else ())]


def _lost(record: RunRecord, baseline: CaseBaseline) -> str:
    """What an update would compare no more."""
    lost = sorted(baseline.metrics.keys() - metrics(record).keys())
    return f"; lost with it: {', '.join(lost)}" if lost else ""


def _over_limits(record: RunRecord, baseline: CaseBaseline, where: str, update: str) -> Iterator[Finding]:
    """Limits hold whatever was declared, and however the run ended."""
    for name, metric in metrics(record).items():
        result = compare_metric(metric, baseline.metrics.get(name), update, suspects(baseline, record))
        if result is not None and result[0] is Verdict.OVER_LIMIT:
            yield Finding(verdict=result[0], what=f"{where}: {name} {result[1]}", next_step=result[2], metric=name)


def _compare_metrics(
    record: RunRecord, baseline: CaseBaseline, listed: frozenset[str], where: str, update: str
) -> list[Finding]:
    measured = metrics(record)
    found = []
    for name in sorted(measured.keys() | baseline.metrics.keys() | listed):
        if name in listed and name not in baseline.metrics:
            what = f"{where}: {name} had a baseline, and it is gone"
            found.append(Finding(verdict=Verdict.LOST_BASELINE, what=what, next_step=RESTORE, metric=name))
            continue
        reason = record.quality_missing.get(name, "the run has no such metric")
        metric = measured.get(name) or Metric(name=name, samples=(), reason=reason)
        result = compare_metric(metric, baseline.metrics.get(name), update, suspects(baseline, record))
        if result is not None:
            verdict, what, step = result
            found.append(Finding(verdict=verdict, what=f"{where}: {name} {what}", next_step=step, metric=name))
    return found


def suspects(baseline: CaseBaseline, record: RunRecord) -> str:
    """How to find what moved a value: the commits since it was reviewed, or the changes that no commit has."""
    since, now = (commit.rstrip("+") for commit in (baseline.measured.commit, record.commit or "HEAD"))
    if since == now:
        return f"look at what is not committed: git diff {now}"
    return f"find the commit: git log --oneline {since}..{now} -- {' '.join(MEASURED)}"


def compare_metric(
    metric: Metric, baseline: MetricBaseline | None, update: str, find: str
) -> tuple[Verdict, str, str] | None:
    """Verdict, what and next step; None if nothing is to be said.

    A change counts where it exceeds the relative and the absolute tolerance; it is believed where the middle
    halves of both samples are disjoint. A limit holds without tolerance.

    Args:
        metric: what was measured.
        baseline: what was reviewed; None: nothing.
        update: the command that takes it over.
        find: how to find what moved it.
    """
    value = metric_kind(metric.name).rounded(metric.value)
    if not metric.samples:
        return (
            Verdict.MISSING_METRIC,
            f"is missing: {metric.reason}",
            "measure it, or delete its baseline line",
        )
    if not math.isfinite(value):
        return Verdict.INVALID_METRIC, f"is {value}", "find out why: no number may be NaN or infinite"
    kind = metric_kind(metric.name)
    if not kind.is_believable(value):
        what = f"is {value:g}, and more than {kind.most:g} {kind.unit} is in another unit"
        return Verdict.INVALID_METRIC, what, "measure it in the unit of its name"
    if baseline is None:
        return Verdict.NEEDS_BASELINE, f"{value:g} has no baseline", f"{update}-new-only"
    if baseline.limit is not None and value > baseline.limit:
        return Verdict.OVER_LIMIT, f"{value:g} against a limit of {baseline.limit:g}", "make it smaller"
    return _change(metric, value, baseline, update, find)


def _change(
    metric: Metric, value: float, baseline: MetricBaseline, update: str, find: str
) -> tuple[Verdict, str, str] | None:
    verdict = judge_change(metric.name, replace(metric.summary, value=value), baseline)
    change = value - baseline.value
    share = f" ({change / baseline.value:+.1%})" if baseline.value else ""
    what = f"{value:g} against {baseline.value:g}{share}; {allowed_change(baseline):.3g} allowed"
    steps = {
        Verdict.INCONCLUSIVE: (f"{what}, and the samples overlap", "measure more clips on a quiet machine"),
        Verdict.IMPROVED: (what, update),
        Verdict.REGRESSED: (what, f'{find}, or {update} --baseline-reason "why this is right"'),
    }
    return (verdict, *steps[verdict]) if verdict in steps else None


def judge_change(name: str, now: Summary, baseline: MetricBaseline) -> Verdict:
    """Pass, inconclusive, improved or regressed: what the change of the metric of that name is worth."""
    change = now.value - baseline.value
    if abs(change) <= allowed_change(baseline):
        return Verdict.PASS
    if not disjoint(now, baseline.summary):
        return Verdict.INCONCLUSIVE
    return Verdict.REGRESSED if worsening(name, baseline.value, now.value) >= 0 else Verdict.IMPROVED


def allowed_change(baseline: MetricBaseline) -> float:
    """By how much it may move, in the metric's unit: the larger of both tolerances."""
    return max(baseline.rel * abs(baseline.value), baseline.abs)


def _ending(record: RunRecord) -> tuple[str, str | None]:
    return record.outcome, record.out_of_memory.phase if record.out_of_memory else None


def _words(ending: tuple[str, str | None]) -> str:
    outcome, phase = ending
    return f"outcome {outcome}" + (f" in {phase}" if phase else "")
