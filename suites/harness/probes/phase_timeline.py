"""How full a real card was while a run went on: the most of each visit to a phase, as the allocator tells. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from liveavatar_core.simulation.memory_timeline import MOST_POINTS, TimelinePoint, thinned


@dataclass(kw_only=True)
class PhaseTimeline:
    """A point for each stretch of time that a rank spends in a phase. Exact at its peak, and no sampling."""

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    points: list[TimelinePoint] = field(default_factory=list)
    """Finished visits; `births` are milliseconds from the first one to their begin."""

    def __post_init__(self) -> None:
        self._first = self._began = self.clock()

    def end(self, phase: str, allocated: int, reserved: int) -> None:
        """A visit ends that held at most this, in bytes; the next one begins."""
        self.points.append(self._point(phase, allocated, reserved))
        if len(self.points) > MOST_POINTS:
            self.points = thinned(self.points)
        self._began = self.clock()

    def columns(self, rank: int, phase: str, allocated: int, reserved: int) -> dict[str, Any]:
        """As it stands in records, with the visit that goes on."""
        points = [*self.points, self._point(phase, allocated, reserved)]
        names = ("allocated", "cached")
        return {
            "rank": rank,
            "axis": "milliseconds",
            "phases": [point.phase for point in points],
            "births": [point.births for point in points],
            "bytes_by_category": {name: [point.by_category[name] for point in points] for name in names},
        }

    def _point(self, phase: str, allocated: int, reserved: int) -> TimelinePoint:
        began = int((self._began - self._first) * 1000)
        held = {"allocated": allocated, "cached": max(reserved - allocated, 0)}
        return TimelinePoint(phase=phase, births=began, allocated=allocated, by_category=held)
