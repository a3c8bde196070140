"""Run records without a run, for tests of what judges them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from liveavatar_core.errors import GIB, MemoryShortage
from suites.harness.records.measurements import PhaseMemory, Timing
from suites.harness.records.record import (
    DeclaredRecipe,
    Failure,
    MachineProfile,
    RunRecord,
)

TWO_RANKS = {"0": ("load", "denoise"), "1": ("load", "denoise")}
UNREAD = {"reserved_bytes": "no allocator", "device_used_bytes": "no card"}


def memory(rank: int, phase: str, gib: float | None) -> PhaseMemory:
    size = None if gib is None else int(gib * GIB)
    return PhaseMemory(
        rank=rank,
        phase=phase,
        allocated_bytes=size,
        reserved_bytes=None,
        device_used_bytes=None,
        by_category=None if size is None else {"parameters": size},
        missing=UNREAD | ({"allocated_bytes": "no reading", "by_category": "no reading"} if gib is None else {}),
    )


def passed(*, tier: str = "gpu5x24", case: str = "published_sharded", peak: float = 20.0, **changes) -> RunRecord:
    """Two ranks that passed on imitated 24 GB cards."""
    record = RunRecord(
        tier=tier,
        case=case,
        recipe=DeclaredRecipe(name=case, hash="9c41e07b", declared={}),
        hardware="simulated",
        emulated=True,
        machine=MachineProfile(card="RTX 4090", cards=5, torch="2.13.0", allocator="tracker"),
        limit_bytes=int(22.15 * GIB),
        outcome="pass",
        expected_phases=TWO_RANKS,
        memory=tuple(memory(rank, *at) for rank in (0, 1) for at in (("load", 17.2), ("denoise", peak - rank))),
        timing=Timing(predicted_seconds_per_clip=8.125),
        commit="1f0c2ab",
        date=date(2026, 11, 20),
    )
    return replace(record, **changes)


def physical(*, clips: tuple[float, ...], **changes) -> RunRecord:
    """Measured on real cards; time may be compared."""
    timing = Timing(clip_seconds=clips, first_frame_seconds=3.0, comparable=True)
    machine = MachineProfile(card="NVIDIA GeForce RTX 4090", cards=5, driver="570.1", torch="2.13.0", link="pcie4")
    return passed(hardware="physical", emulated=False, machine=machine, timing=timing, **changes)


def ran_out(*, phase: str = "encode", category: str = "unsharded_parameters", **changes) -> RunRecord:
    """Four cards, one of which was 3.26 GiB short."""
    details = MemoryShortage(
        rank=0,
        phase=phase,
        category=category,
        requested=int(3.9 * GIB),
        free=int(0.64 * GIB),
        capacity=int(22.15 * GIB),
        holders={"parameters": int(21.5 * GIB)},
    )
    base = {
        "tier": "gpu4x24",
        "outcome": "oom",
        "out_of_memory": details,
        "ranks_out_of_memory": (0,),
        "timing": Timing(),
    }
    return passed(**(base | changes))


def failed(outcome: str, **changes) -> RunRecord:
    """Ended in neither a pass nor an expected lack of memory."""
    return passed(outcome=outcome, failure=Failure(message=f"rank 1 ended in {outcome}", rank=1), memory=(), **changes)
