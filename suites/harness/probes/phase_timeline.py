"""How full a real card was while a run went on: the most of each visit to a phase, as the allocator tells. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from liveavatar_core.simulation.memory_timeline import MOST_POINTS, TimelinePoint, thinned
from suites.harness.probes.timelines import memory_timeline
from suites.harness.records.measurements import MemoryTimeline


@dataclass(kw_only=True)
class PhaseTimeline:
    """A point for each stretch of time that a rank spends in a phase. Exact at its peak, and no sampling."""

    clock: Callable[[], float] = time.monotonic
    """A function that gives seconds, and never goes back."""
    points: list[TimelinePoint] = field(default_factory=list)
    """Finished visits; `start` is in milliseconds from the first one to their begin."""

    def __post_init__(self) -> None:
        self._first = self._began = self.clock()

    def end(self, phase: str, allocated: int, reserved: int) -> None:
        """A visit ends that held at most this, in bytes; the next one begins."""
        self.points.append(self._point(phase, allocated, reserved))
        if len(self.points) > MOST_POINTS:
            self.points = thinned(self.points)
        self._began = self.clock()

    def timeline(self, rank: int, phase: str, allocated: int, reserved: int) -> MemoryTimeline:
        """All of it in the record's form, with the visit that goes on."""
        points = [*self.points, self._point(phase, allocated, reserved)]
        return memory_timeline(rank, points, axis="milliseconds")

    def _point(self, phase: str, allocated: int, reserved: int) -> TimelinePoint:
        began = int((self._began - self._first) * 1000)
        held = {"allocated": allocated, "cached": max(reserved - allocated, 0)}
        return TimelinePoint(phase=phase, start=began, allocated=allocated, by_category=held)
