"""How full a card was while a run went on, in few points: enough to draw, cheap enough to keep for every run."""

from __future__ import annotations

from dataclasses import dataclass

from liveavatar_core import scopes
from liveavatar_core.simulation.alloc_events import Event, ReplayedCall

MOST_POINTS = 160
"""Points that a timeline never exceeds."""


@dataclass(kw_only=True)
class TimelinePoint:
    """The fullest moment of a stretch of allocations, all in one phase."""

    phase: str
    """The phase of the stretch."""
    start: int
    """Allocations on the card until then: the axis of time, as a simulation reads no clock."""
    allocated: int
    """Bytes on the card."""
    by_category: dict[str, int]
    """Bytes on the card, by category."""


class TimelineBuilder:
    """Listens to a tracker and keeps the fullest moment of each stretch of allocations. Peaks are never thinned out."""

    def __init__(self) -> None:
        self.points: list[TimelinePoint] = []
        self._held = dict.fromkeys(scopes.CATEGORIES, 0)
        self._allocated, self._allocations, self._opened, self._stretch = 0, 0, 0, 1

    def on_event(self, event: Event) -> None:
        """Hear of an allocation or a free."""
        allocation = event.allocation
        if allocation.place != "card":
            return
        change = allocation.size if event.allocates else -allocation.size
        self._held[allocation.category] += change
        self._allocated += change
        if event.allocates:
            self._allocations += 1
            self._note(self._point(0, ()))

    def on_repeated(self, call: ReplayedCall) -> None:
        """Hear of a call at once: its fullest moment stands for all of it."""
        rise = call.program.rises.get("card")
        if rise is not None and rise.allocates:
            self._allocations += call.program.allocations_in("card")
            self._note(self._point(rise.allocated, rise.by_category))
        for category, change in call.program.changes.get("card", {}).items():
            self._held[category] += change
            self._allocated += change

    def _note(self, point: TimelinePoint) -> None:
        last = self.points[-1] if self.points else None
        if last is None or last.phase != point.phase or self._allocations - self._opened >= self._stretch:
            self._opened = self._allocations
            self.points.append(point)
            if len(self.points) > MOST_POINTS:
                self._stretch *= 2
                self.points = thinned(self.points)
        elif point.allocated > last.allocated:
            self.points[-1] = point

    def _point(self, rise: int, changes: tuple[tuple[str, int], ...]) -> TimelinePoint:
        """This moment, or one that lies higher by `rise` bytes."""
        held = dict(self._held)
        for category, change in changes:
            held[category] += change
        phase, allocated = scopes.current().phase, self._allocated + rise
        return TimelinePoint(phase=phase, start=self._allocations, allocated=allocated, by_category=held)


def thinned(points: list[TimelinePoint]) -> list[TimelinePoint]:
    """The fuller one of each pair, so that what is left is still the outline.

    A phase of few allocations keeps its point, unless phases alternate so often that there is no room for all.
    """
    kept = [point for pair in _pairs(points) for point in (pair if _are_apart(pair) else [_fuller(pair)])]
    return kept if len(kept) < MOST_POINTS * 3 // 4 else [_fuller(pair) for pair in _pairs(points)]


def _pairs(points: list[TimelinePoint]) -> list[list[TimelinePoint]]:
    return [points[start : start + 2] for start in range(0, len(points), 2)]


def _are_apart(pair: list[TimelinePoint]) -> bool:
    return pair[0].phase != pair[-1].phase


def _fuller(pair: list[TimelinePoint]) -> TimelinePoint:
    return max(pair, key=lambda point: point.allocated)
