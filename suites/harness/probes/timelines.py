"""How full a rank's card was, from points to the record's columns. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from liveavatar_core.simulation.memory_timeline import TimelinePoint
from suites.harness.records.measurements import MemoryTimeline, Phase


def memory_timeline(
    rank: int, points: Sequence[TimelinePoint], axis: Literal["allocations", "milliseconds"] = "allocations"
) -> MemoryTimeline:
    """A column for each quantity; categories that never held anything are left out."""
    names = sorted({name for point in points for name, held in point.by_category.items() if held})
    return MemoryTimeline(
        rank=rank,
        axis=axis,
        phases=tuple(cast(Phase, point.phase) for point in points),
        starts=tuple(point.start for point in points),
        bytes_by_category={name: tuple(point.by_category[name] for point in points) for name in names},
    )
