"""How a run ended, before it is put on record. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from liveavatar_core.errors import MemoryShortage, OutOfMemory
from liveavatar_core.simulation.voice_limit import VoiceLimit
from suites.harness.messages import RankReport
from suites.harness.probes.video.quality import Quality
from suites.harness.processes.failures import GroupError
from suites.harness.records.measurements import Phase, SimulatedRole, Timing
from suites.harness.records.nccl import NcclReport
from suites.harness.records.record import Failure, Outcome


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended, as its hardware mode makes it out from what its ranks told."""

    outcome: Outcome
    """The outcome: pass, oom, or what kind of failure."""
    reports: tuple[RankReport, ...] = ()
    """The reports of every rank that told anything; of a simulation those of every rank that is stood for."""
    shortage: MemoryShortage | None = None
    """The first rank's shortage, with outcome oom."""
    ranks_out_of_memory: tuple[int, ...] = ()
    """Every rank that ran out, that one first, with outcome oom."""
    failure: Failure | None = None
    """The failure, with every outcome but pass and oom."""
    timing: Timing = Timing()
    """Seconds, measured or predicted."""
    quality: Quality = field(default_factory=lambda: Quality(values={}, missing={}))
    """The quality of the video; empty where there is none."""
    simulated_roles: tuple[SimulatedRole, ...] = ()
    """The ranks that a simulation executed."""
    longest_voice: VoiceLimit | None = None
    """How long the voice may be, of a simulation that passed."""
    nccl: NcclReport | None = None
    """What NCCL wrote down, however the run ended; None where it took no part."""


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
