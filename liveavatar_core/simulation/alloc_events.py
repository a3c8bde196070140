"""Allocations, frees, and calls repeated as a whole: what a run did to memory, as records in the order of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import NamedTuple, Protocol


class Allocation(NamedTuple):
    """One storage that takes bytes."""

    number: int
    """Order of allocation, from 1 in a run, from 0 in a call that may be repeated."""
    size: int
    """Bytes, rounded as the allocator rounds."""
    place: str
    """Memory: card or host."""
    category: str
    """What it is for, one of scopes.CATEGORIES."""
    stream: int = 0
    """The stream that it was asked for on: 0 is the one that computes, others by when they first asked."""


class Event(NamedTuple):
    """An allocation, or its end."""

    allocates: bool
    """False: the allocation is freed."""
    allocation: Allocation
    """What is allocated or freed."""
    lingers: bool = False
    """Whether another stream still works with what is freed, as `record_stream` has said."""


class ReplayedCall(NamedTuple):
    """A call of which only its memory program happens again."""

    program: MemoryProgram
    """What it allocates and frees."""
    first: int
    """The number that its allocation 0 has here; the others follow."""
    leftover: int | None
    """The number of what it frees as LEFTOVER; None: it frees nothing from before."""


LEFTOVER = -1
"""Within a program: the number of the one allocation from before the call that it may free."""


@dataclass(frozen=True, kw_only=True)
class Rise:
    """The highest point of a program above where it begins, in one memory."""

    allocated: int
    """Bytes above the beginning; 0 if nothing is allocated."""
    by_category: tuple[tuple[str, int], ...]
    """Change of each category at that moment."""
    allocates: bool
    """Whether anything is allocated at all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryProgram:
    """The events of one call, numbered from 0, calls repeated inside of it as one event each."""

    events: tuple[Event | ReplayedCall, ...]
    """In their order."""

    def same_as(self, other: MemoryProgram) -> bool:
        """Whether both do the same; programs themselves are told apart by identity, so that lookups are quick."""
        return self is other or all(one == each for one, each in zip_longest(self.flat(), other.flat()))

    @cached_property
    def allocations(self) -> int:
        """How many, those of repeated calls included."""
        return sum(self._allocations_by_place.values())

    def touches(self, place: str) -> bool:
        """Whether it allocates or frees anything in a memory."""
        return place in self.changes

    def allocations_in(self, place: str) -> int:
        """How many in one memory."""
        return self._allocations_by_place[place]

    @cached_property
    def _allocations_by_place(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for each in self.events:
            if isinstance(each, ReplayedCall):
                found += each.program._allocations_by_place
            elif each.allocates:
                found[each.allocation.place] += 1
        return found

    @cached_property
    def survivors(self) -> Mapping[int, Allocation]:
        """What it leaves allocated, by number."""
        living: dict[int, Allocation] = {}
        for each in self.events:
            if isinstance(each, ReplayedCall):
                if each.leftover is not None and each.program.frees_leftover:
                    living.pop(each.leftover, None)
                for number, allocation in each.program.survivors.items():
                    living[each.first + number] = allocation._replace(number=each.first + number)
            elif each.allocates:
                living[each.allocation.number] = each.allocation
            else:
                living.pop(each.allocation.number, None)
        return living

    @cached_property
    def frees_leftover(self) -> bool:
        """Whether it frees what the call before it left."""
        return any(
            each.leftover == LEFTOVER and each.program.frees_leftover
            if isinstance(each, ReplayedCall)
            else each.allocation.number == LEFTOVER
            for each in self.events
        )

    def flat(self, first: int = 0, leftover: int = LEFTOVER) -> Iterator[Event]:
        """Every single event, numbers counted from `first`, LEFTOVER named `leftover`."""
        for each in self.events:
            if isinstance(each, ReplayedCall):
                inner = first + each.leftover if each.leftover not in (None, LEFTOVER) else leftover
                yield from each.program.flat(first + each.first, inner)
            else:
                number = each.allocation.number
                named = leftover if number == LEFTOVER else first + number
                yield each._replace(allocation=each.allocation._replace(number=named))

    @cached_property
    def rises(self) -> Mapping[str, Rise]:
        """The highest point in each memory that it touches."""
        return {place: self._rise(place) for place in self.changes}

    @cached_property
    def changes(self) -> Mapping[str, Mapping[str, int]]:
        """By how much it changes what is allocated, by memory and category."""
        found: dict[str, Counter[str]] = {}
        for each in self.events:
            for place, category, change in _changes_of(each):
                found.setdefault(place, Counter())[category] += change
        return found

    def _rise(self, place: str) -> Rise:
        """The first moment at which most is allocated, as a memory tracker would note it."""
        now, highest, allocates = 0, 0, False
        held: Counter[str] = Counter()
        top: dict[str, int] = {}
        for each in self.events:
            peak = _rise_of(each, place)
            if peak is not None and (not allocates or now + peak.allocated > highest):
                highest, allocates, top = now + peak.allocated, True, dict(held)
                for category, change in peak.by_category:
                    top[category] = top.get(category, 0) + change
            for where, category, change in _changes_of(each):
                if where == place:
                    now += change
                    held[category] += change
        return Rise(allocated=highest, by_category=tuple(sorted(top.items())), allocates=allocates)


class EventListener(Protocol):
    """Hears of everything that a memory tracker sees."""

    def on_event(self, event: Event) -> None:
        """One allocation or free."""

    def on_repeated(self, call: ReplayedCall) -> None:
        """All events of a call at once."""


def _changes_of(each: Event | ReplayedCall) -> Iterator[tuple[str, str, int]]:
    """Memory, category and change in bytes of an event."""
    if isinstance(each, ReplayedCall):
        for place, changes in each.program.changes.items():
            yield from ((place, category, change) for category, change in changes.items())
    else:
        allocation = each.allocation
        yield allocation.place, allocation.category, allocation.size if each.allocates else -allocation.size


def _rise_of(each: Event | ReplayedCall, place: str) -> Rise | None:
    """How high an event goes above where it begins; None if it allocates nothing in that memory."""
    if isinstance(each, ReplayedCall):
        rise = each.program.rises.get(place)
        return rise if rise is not None and rise.allocates else None
    allocation = each.allocation
    if not each.allocates or allocation.place != place:
        return None
    return Rise(allocated=allocation.size, by_category=((allocation.category, allocation.size),), allocates=True)
