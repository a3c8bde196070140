"""What a memory tracker saw of a rank, in the record's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from liveavatar_core.simulation.memory_account import PhasePeak
from suites.harness.records.measurements import Phase, PhaseMemory

NO_ALLOCATOR = "the tracker counts tensors; there is no allocator to keep memory in reserve"
NO_CARD = "there is no card"


def phase_memory(
    rank: int, peaks: Mapping[str, PhasePeak], reserved: Mapping[str, int] | None = None
) -> tuple[PhaseMemory, ...]:
    """An entry for each phase. `reserved`: bytes that a modelled caching allocator kept, by phase."""
    return tuple(_entry(rank, phase, peak, (reserved or {}).get(phase)) for phase, peak in peaks.items())


def _entry(rank: int, phase: str, peak: PhasePeak, reserved: int | None) -> PhaseMemory:
    missing = {"device_used_bytes": NO_CARD} | ({} if reserved is not None else {"reserved_bytes": NO_ALLOCATOR})
    return PhaseMemory(
        rank=rank,
        phase=cast(Phase, phase),
        allocated_bytes=peak.allocated,
        reserved_bytes=reserved,
        device_used_bytes=None,
        by_category=dict(peak.by_category),
        host_bytes=peak.host_allocated,
        missing=missing,
    )
