"""Whether a record has all that it says it must have, in numbers, and whether its peak is within its own limit."""

from __future__ import annotations

import math
from collections.abc import Iterator

from liveavatar_core.errors import GIB
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.measured import metrics
from suites.harness.verdicts.metrics import metric_kind
from suites.harness.verdicts.verdict import Finding, Verdict

PEAK = "peak_vram_gib"
"""The metric that a card limits."""
NOT_FINITE = "nan_blocks_count"
"""The metric of which nobody may review another value than 0."""


def own_findings(record: RunRecord) -> list[Finding]:
    """What is wrong with `record` whatever was reviewed before, or is to be.

    Readings that lack, numbers that are none, latents that are none, and more than a card may hold.
    """
    where = f"{record.tier}/{record.case} on {record.hardware} cards"
    return [*_missing(record, where), *_invalid(record, where), *_over_limit(record, where)]


def missing_readings(record: RunRecord) -> list[str]:
    """Ranks and phases that `record` must have and has not, as `rank 1: decode`.

    A run that ran out of memory says only when it stopped: all ranks must have loaded, unless it ran out in that.
    """
    there = {(str(each.rank), each.phase) for each in record.memory if each.allocated_bytes is not None}
    lacking = []
    for rank, phases in _expected(record).items():
        missing = [phase for phase in phases if (rank, phase) not in there]
        lacking += [f"rank {rank}: {', '.join(missing)}"] if missing else []
    return lacking


def _expected(record: RunRecord) -> dict[str, tuple[str, ...]]:
    if record.outcome == "pass":
        return dict(record.expected_phases)
    details = record.out_of_memory
    if details is None or details.phase == "load":
        return {}
    return dict.fromkeys(record.expected_phases, ("load",))


def _missing(record: RunRecord, where: str) -> Iterator[Finding]:
    if not record.expected_phases:
        what = f"{where}: the record names no rank that it must have readings of"
        yield Finding(verdict=Verdict.MISSING_METRIC, what=what, next_step="run the case again with this version")
    lacking = missing_readings(record)
    if lacking:
        what = f"{where}: no reading of memory of {'; '.join(lacking)}"
        step = "read the ranks' output in the report directory: a rank that told nothing may have held anything"
        yield Finding(verdict=Verdict.MISSING_METRIC, what=what, next_step=step)


def _invalid(record: RunRecord, where: str) -> Iterator[Finding]:
    step = "find out why: no number may be NaN or infinite"
    for name, metric in metrics(record).items():
        if metric.samples and not math.isfinite(metric.value):
            what = f"{where}: {name} is {metric.value}"
            yield Finding(verdict=Verdict.INVALID_METRIC, what=what, next_step=step, metric=name)
    blocks = record.quality.get(NOT_FINITE, 0)
    if blocks > 0:
        what = f"{where}: {blocks:g} blocks with a latent that is NaN or infinite, against 0"
        yield Finding(verdict=Verdict.INVALID_METRIC, what=what, next_step=step, metric=NOT_FINITE)


def _over_limit(record: RunRecord, where: str) -> Iterator[Finding]:
    """The limit of the run itself, baseline or not; a run that ran out has met it already."""
    peak, limit = record.peak_bytes(), record.limit_bytes
    if record.outcome != "pass" or peak is None or limit is None or peak <= limit:
        return
    held, allowed = (metric_kind(PEAK).rounded(size / GIB) for size in (peak, limit))
    what = f"{where}: {PEAK} {held:g} against a limit of {allowed:g}, what a card may hold in this run"
    yield Finding(verdict=Verdict.OVER_LIMIT, what=what, next_step="make it smaller", metric=PEAK)
