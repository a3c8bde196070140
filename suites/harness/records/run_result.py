"""How a run ended, before it is put on record. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from liveavatar_core.errors import MemoryShortage, OutOfMemory
from suites.harness.messages import RankReport
from suites.harness.probes.film.quality import Quality
from suites.harness.processes.failures import GroupError
from suites.harness.records.measurements import Phase, SimulatedRole, Timing
from suites.harness.records.record import Failure, Outcome


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a hardware mode makes of its ranks."""

    outcome: Outcome
    """pass, oom, or what kind of failure."""
    reports: tuple[RankReport, ...] = ()
    """Of every rank that told anything; of a simulation for every rank that is stood for."""
    shortage: MemoryShortage | None = None
    """With outcome oom: the first rank's."""
    ranks_out_of_memory: tuple[int, ...] = ()
    """With outcome oom: every rank that ran out, that one first."""
    failure: Failure | None = None
    """With every outcome but pass and oom."""
    timing: Timing = Timing()
    """Seconds, measured or predicted."""
    quality: Quality = field(default_factory=lambda: Quality(values={}, missing={}))
    """Of the film; nothing where there is none."""
    simulated_roles: tuple[SimulatedRole, ...] = ()
    """Of a simulation: which ranks were executed."""


def failed_result(error: GroupError, reports: tuple[RankReport, ...] = ()) -> RunResult:
    """The result of a group of ranks that failed, with what they told until then."""
    lead = error.lead
    if isinstance(lead.error, OutOfMemory):
        ranks = tuple(failure.rank for failure in error.failures if failure.kind == "oom")
        return RunResult(outcome="oom", reports=reports, shortage=lead.error.shortage, ranks_out_of_memory=ranks)
    failure = Failure(
        message=lead.message.splitlines()[0],
        rank=lead.rank,
        phase=cast(Phase | None, lead.phase or None),
        next_step=error.next_step,
        detail=lead.detail,
    )
    return RunResult(outcome=lead.kind, reports=reports, failure=failure)
