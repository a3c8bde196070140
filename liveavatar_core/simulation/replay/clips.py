"""The shortcut over clips: a steady one is like the one before, so that a long video takes no longer than a short one.

A clip is executed like any other until two in a row did the same, allocation for allocation, and memory stands at the
end of a clip as it stood at the end of an earlier one: the same blocks in the same order, used by what was made at the
same place of its clip, the same totals. What comes of a clip depends on nothing else, so that from there on clips go
round, and whole rounds are counted instead of executed. The last clip is always executed: nothing need follow it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from liveavatar_core import scopes
from liveavatar_core.simulation.alloc_events import Event, EventListener, ReplayedCall
from liveavatar_core.simulation.allocator import CachingAllocator
from liveavatar_core.simulation.cost.clip_work import ClipWork
from liveavatar_core.simulation.cost.roofline import Operation
from liveavatar_core.simulation.memory_account import MemoryAccount
from liveavatar_core.simulation.replay.repeater import UnitReplayer

FEWEST_CLIPS = 6
"""Clips of the shortest video of which one can be left out: two differ from the rest, two show that they are alike,
the last one is executed."""


class _Mark(NamedTuple):
    """Where a rank stands at the end of a clip."""

    memory: bytes
    """Digest of all that later clips depend on."""
    retries: int
    """How often the allocator has given segments back."""
    units: int
    """Calls of units that were repeated so far."""
    work: Counter[Operation]
    """Work that was done so far."""


class ClipReplayer:
    """Says which clips are executed, and counts the others. Hears of every allocation and free meanwhile."""

    def __init__(self, listener: EventListener | None = None) -> None:
        """`listener`: hears of them as well, of those in clips that are executed."""
        self._listener = listener
        self._program: list[tuple] = []
        self._marks: list[_Mark] = []
        """The ends of the latest clips in a row that did the same."""
        self._first = 0
        """Number of the last allocation before the clip that is being made."""

    def open(self, tracker: MemoryAccount, allocator: CachingAllocator, units: UnitReplayer, clips: ClipWork) -> None:
        """Hear of what `tracker` counts, `allocator` lays, `units` repeats; `clips` is told what is left out."""
        self._tracker, self._allocator, self._units, self._clips = tracker, allocator, units, clips

    def on_event(self, event: Event) -> None:
        """Hear of an allocation or a free."""
        allocation = event.allocation
        relative = allocation._replace(number=allocation.number - self._first)
        self._program.append((scopes.current().phase, event._replace(allocation=relative)))
        if self._listener is not None:
            self._listener.on_event(event)

    def on_repeated(self, call: ReplayedCall) -> None:
        """Hear of a call at once."""
        left = None if call.leftover is None else call.leftover - self._first
        self._program.append((scopes.current().phase, call._replace(first=call.first - self._first, leftover=left)))
        if self._listener is not None:
            self._listener.on_repeated(call)

    def numbers(self, num_clip: int) -> Iterator[int]:
        """Which of `num_clip` clips are made; the next is asked for when one has been made."""
        number, before = 0, None
        while number < num_clip:
            self._program, self._first = [], self._tracker.last_number
            yield number
            if self._program != before:
                self._marks.clear()
            before = self._program
            number += 1 + self._leave_out(num_clip - number - 1)

    def _leave_out(self, remaining: int) -> int:
        """Count as many of the `remaining` clips as go round in full; returns how many."""
        mark = self._mark()
        rounds = ((back, each) for back, each in enumerate(reversed(self._marks), 1) if each.memory == mark.memory)
        clips, since = next(rounds, (1, None))
        self._marks.append(mark)
        times = 0 if since is None else (remaining - 1) // clips
        if since is None or times < 1:
            return 0
        self._allocator.result.retries += times * (mark.retries - since.retries)
        self._units.repeated += times * (mark.units - since.units)
        work = {operation: times * count for operation, count in (mark.work - since.work).items()}
        self._clips.leave_out(times * clips, Counter(work))
        self._marks.clear()
        return times * clips

    def _mark(self) -> _Mark:
        standing = self._tracker.totals, self._allocator.layout(since=self._first)
        return _Mark(
            memory=hashlib.blake2b(repr(standing).encode(), digest_size=16).digest(),
            retries=self._allocator.result.retries,
            units=self._units.repeated,
            work=self._clips.so_far,
        )
