"""How measured values become baselines: values change, tolerances never; what got worse needs a reason."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from liveavatar_core.errors import GIB, BadData, BadInput
from liveavatar_core.files import write_atomically
from suites.harness.records.machine_identity import machine_identity
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.baselines import (
    MACHINE,
    OWN_KEYS,
    BaselineFile,
    CaseBaseline,
    MetricBaseline,
    Provenance,
    baseline_path,
    read_baseline,
    render,
)
from suites.harness.verdicts.index import add_to_index, index_key
from suites.harness.verdicts.measured import Metric, metrics
from suites.harness.verdicts.metrics import metric_kind
from suites.harness.verdicts.reasons import next_best, reason_line, what_got_worse

POWER_CAP = "power cap"
"""What holds back every card at full load; it is part of what a card can do."""
LIMITED = "peak_vram_gib"
"""The metric that the card limits."""


def updated_case(old: CaseBaseline | None, record: RunRecord, reason: str | None) -> CaseBaseline:
    """`old` with the values of `record`; tolerances stay. Equal to `old` where no value differs.

    Raises:
        BadInput: a number got worse by more than its own spread, or crept too far since a reason was last given, or is
            lost, or the outcome got worse; and there is no reason.
        BadData: the record has no commit, or a metric that is missing or NaN.
    """
    fresh = _measured_case(record, old)
    if old is None or replace(fresh, measured=old.measured, history=old.history) == old:
        return old or fresh
    worse = what_got_worse(old, fresh)
    if worse and not reason:
        raise BadInput("; ".join(worse.values()), 'give --baseline-reason "why this is right"')
    lines = (reason_line(record.date, fresh.measured.commit, change, reason or "") for change in worse.values())
    explained = {name: replace(fresh.metrics[name], best=None) for name in worse.keys() & fresh.metrics.keys()}
    return replace(fresh, metrics=fresh.metrics | explained, history=(*old.history, *lines))


def with_new_metrics(old: CaseBaseline | None, record: RunRecord) -> CaseBaseline:
    """`old` and what `record` has beside it; what `old` has stays as it is."""
    fresh = _measured_case(record, None)
    return replace(old, metrics=fresh.metrics | old.metrics) if old else fresh


def write_case(folder: Path, record: RunRecord, case: CaseBaseline) -> Path:
    """Put `case` in its file, and in the index; the file's other cases stay as they are. Returns the file's path."""
    path = baseline_path(folder, record)
    cases = read_baseline(path).cases if path.exists() else {}
    file = BaselineFile(machine=machine_identity(record), cases=cases | {record.case: case})
    write_atomically(path, render(file))
    add_to_index(folder, index_key(record), tuple(sorted(case.metrics)))
    return path


def _measured_case(record: RunRecord, old: CaseBaseline | None) -> CaseBaseline:
    """The baseline that `record` makes, with the tolerances of `old` where it has them."""
    try:
        return _case_of(record, old)
    except ValueError as error:
        raise BadData(f"{record.tier}/{record.case}: {error}", "measure it, then update") from error


def _case_of(record: RunRecord, old: CaseBaseline | None) -> CaseBaseline:
    if record.commit is None:
        raise BadData("the record has no commit: nobody could tell what was measured", "run in a git checkout")
    _check_circumstances(record)
    if record.outcome not in ("pass", "oom") or record.case == MACHINE:
        raise BadData(f"{record.case} ended in {record.outcome}: no baseline", "update from a run that ended well")
    entries = {}
    for name, metric in metrics(record).items():
        entries[name] = _entry(metric, record, old.metrics.get(name) if old else None)
    phase = record.out_of_memory.phase if record.out_of_memory else None
    return CaseBaseline(
        recipe=record.recipe.hash,
        outcome="oom" if record.outcome == "oom" else "pass",
        phase=phase,
        measured=Provenance(
            commit=record.commit, date=record.date, torch=record.machine.torch or "none", run=record.run
        ),
        metrics=entries,
    )


def _check_circumstances(record: RunRecord) -> None:
    """Refuse what nobody could measure again. A busy card is refused before anything runs."""
    if record.commit and record.commit.endswith("+"):
        what = f"measured at {record.commit}: code, assets or versions had changes that no commit has"
        raise BadData(what, "commit them, then measure")
    slowed = [reason for reason in record.card_conditions.slowed_by if reason != POWER_CAP]
    if slowed:
        raise BadData(f"the cards were slowed down ({', '.join(slowed)})", "cool them, then measure")


def _entry(metric: Metric, record: RunRecord, old: MetricBaseline | None) -> MetricBaseline:
    summary, name = metric.summary, metric.name
    if not math.isfinite(summary.value) or name in OWN_KEYS:
        raise BadData(f"{name} is {summary.value} ({metric.reason or 'as measured'})", "measure it, then update")
    kind = metric_kind(name)
    value, spread = kind.rounded(summary.value), kind.rounded(summary.spread)
    if old is not None:
        best = next_best(name, old, value, explained=False)
        return replace(old, value=value, spread=spread, n=summary.n, best=best)
    tolerance = kind.default_tolerance(record.hardware)
    limited = name == LIMITED and record.limit_bytes is not None
    limit = kind.rounded(record.limit_bytes / GIB) if limited and record.limit_bytes else None
    return MetricBaseline(value=value, spread=spread, n=summary.n, rel=tolerance.rel, abs=tolerance.abs, limit=limit)
