"""Accounts of a rank's bytes by memory, category and phase, which refuse what a card could not hold. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from liveavatar_core import scopes
from liveavatar_core.errors import MemoryShortage, OutOfMemory
from liveavatar_core.simulation.alloc_events import (
    Allocation,
    Event,
    EventListener,
    MemoryProgram,
    ReplayedCall,
    Rise,
)
from liveavatar_core.simulation.allocator import CachingAllocator, NoRoom

ALLOCATION_UNIT = 512
"""Bytes that the CUDA caching allocator rounds every request up to."""


@dataclass(kw_only=True)
class PhasePeak:
    """The fullest moment of one phase on the card."""

    allocated: int = 0
    """Bytes on the card at that moment."""
    by_category: dict[str, int] = field(default_factory=dict)
    """Bytes of each category at that moment."""
    host_allocated: int = 0
    """Most bytes in host memory during the phase."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a rank may hold, in bytes; None is unlimited."""

    card: int | None = None
    """Usable memory of the card."""
    host: int | None = None
    """Host memory for this rank."""
    segments: bool = True
    """Whether the card's allocator must find room as well. False: only tensors count, as for miniatures, on whose few
    MiB segments of 20 have no meaning."""


UNLIMITED = Capacity()


class MemoryAccount:
    """Counts the bytes of one rank as they are allocated and freed. Raises OutOfMemory at its capacity."""

    def __init__(
        self,
        *,
        rank: int = 0,
        capacity: Capacity = UNLIMITED,
        allocator: CachingAllocator | None = None,
        listener: EventListener | None = None,
    ) -> None:
        """Count for `rank`; raise at `capacity`.

        allocator: lays what stands on the card into segments, and may find no room although tensors alone would fit.
        listener: hears of every allocation and free that takes bytes.
        """
        self.rank, self.capacity, self._allocator = rank, capacity, allocator
        self.totals = {place: dict.fromkeys(scopes.CATEGORIES, 0) for place in scopes.PLACES}
        """Bytes allocated now, by memory and category."""
        self.allocated = dict.fromkeys(scopes.PLACES, 0)
        """Bytes allocated now, by memory."""
        self.peaks: dict[str, PhasePeak] = {}
        """The fullest moment of each phase that was reached."""
        self.on_phase: Callable[[str], None] = lambda phase: None
        """Told of each phase when its first bytes are allocated."""
        self._allocations, self._silent = 0, False
        self._listener = listener
        self._doomed: int | None = None
        """Number of an allocation that is to come, and for which there is no room."""
        self._log: list[Event | ReplayedCall] = []
        self._recordings = 0

    def allocate(self, nbytes: int, stream: int = 0, place: str | None = None) -> Allocation:
        """Count `nbytes`, rounded up, for what `scopes` say, asked for on `stream`. Raises OutOfMemory.

        place: the memory, where it is known otherwise than from `scopes`.
        """
        scope = scopes.current()
        size = -(-nbytes // ALLOCATION_UNIT) * ALLOCATION_UNIT
        allocation = Allocation(self._allocations + 1, size, place or scope.place, scope.category, stream)
        self._check(allocation)
        self._lay(allocation)
        self._allocations += 1
        self.carry(allocation)
        self._note_allocation(allocation, self._peak(scope.phase))
        return allocation

    @property
    def last_number(self) -> int:
        """The number of the last allocation."""
        return self._allocations

    def free(self, allocation: Allocation, *, lingers: bool = False) -> None:
        """Count an allocation no longer; `lingers`: another stream still works with it."""
        self._drop(allocation)
        if allocation.size and not self._silent:
            if self._allocator is not None and allocation.place == "card" and self._doomed is None:
                self._allocator.free(allocation.number, lingers=lingers)
            self._tell(Event(False, allocation, lingers))

    def carry(self, allocation: Allocation) -> None:
        """Count what is as good as allocated already: it changes the totals, and no peak."""
        self.totals[allocation.place][allocation.category] += allocation.size
        self.allocated[allocation.place] += allocation.size

    def _drop(self, allocation: Allocation) -> None:
        self.totals[allocation.place][allocation.category] -= allocation.size
        self.allocated[allocation.place] -= allocation.size

    def _check(self, allocation: Allocation) -> None:
        capacity = self.capacity.card if allocation.place == "card" else self.capacity.host
        if capacity is not None and self.allocated[allocation.place] + allocation.size > capacity:
            raise OutOfMemory(self._shortage(allocation, capacity))

    def _lay(self, allocation: Allocation) -> None:
        """Have the caching allocator find room."""
        if self._allocator is None or allocation.place != "card" or not allocation.size:
            return
        try:
            if self._doomed is None:
                self._allocator.allocate(allocation.number, allocation.size, scopes.current().phase, allocation.stream)
            elif allocation.number == self._doomed:
                raise NoRoom(self._doomed)
        except NoRoom:
            raise OutOfMemory(self._fragmentation(allocation)) from None

    def _fragmentation(self, allocation: Allocation) -> MemoryShortage:
        assert self._allocator is not None and self._allocator.capacity is not None  # noqa: PT018 - it found no room
        return replace(self._shortage(allocation, self._allocator.capacity), reserved=self._allocator.reserved)

    def _shortage(self, allocation: Allocation, capacity: int) -> MemoryShortage:
        held: Mapping[str, int] = self.totals[allocation.place]
        return MemoryShortage(
            rank=self.rank,
            phase=scopes.current().phase,
            category=allocation.category if allocation.place == "card" else "host",
            requested=allocation.size,
            free=capacity - self.allocated[allocation.place],
            capacity=capacity,
            holders={name: nbytes for name, nbytes in held.items() if nbytes},
        )

    def _note_allocation(self, allocation: Allocation, peak: PhasePeak) -> None:
        if allocation.size:
            self._tell(Event(True, allocation))
        if allocation.place == "host":
            peak.host_allocated = max(peak.host_allocated, self.allocated["host"])
        elif self.allocated["card"] > peak.allocated:
            peak.allocated = self.allocated["card"]
            peak.by_category = dict(self.totals["card"])

    def _peak(self, phase: str) -> PhasePeak:
        peak = self.peaks.get(phase)
        if peak is None:
            peak = self.peaks[phase] = PhasePeak(host_allocated=self.allocated["host"])
            self.on_phase(phase)
        return peak

    def _tell(self, event: Event) -> None:
        if self._recordings:
            self._log.append(event)
        if self._listener is not None:
            self._listener.on_event(event)

    @contextmanager
    def recording(self) -> Iterator[list[Event | ReplayedCall]]:
        """Events inside are added to the list given, behind what an outer recording put there."""
        self._recordings += 1
        try:
            yield self._log
        finally:
            self._recordings -= 1
            if not self._recordings:
                self._log.clear()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Speak of no frees inside."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before

    def fits(self, program: MemoryProgram) -> bool:
        """Whether a call with that program would stay within the capacity."""
        limits = {"card": self.capacity.card, "host": self.capacity.host}
        tops = {place: self.allocated[place] + rise.allocated for place, rise in program.rises.items()}
        return all(limit is None or tops.get(place, 0) <= limit for place, limit in limits.items())

    def repeat(self, program: MemoryProgram, leftover: int | None) -> int:
        """Note the peaks of a call that is not executed, and tell of it. Returns the number of its allocation 0.

        What it leaves must be carried by the caller. `leftover`: number of what it frees as LEFTOVER.

        Raises:
            NoRoom: the allocator has none for one of its allocations. Nothing is noted; executed, it would run out of
                memory there, and nothing else can follow.
        """
        phase = scopes.current().phase
        call = ReplayedCall(program, self._allocations + 1, leftover if program.frees_leftover else None)
        if self._allocator is not None:
            try:
                self._allocator.repeat(call, phase)
            except NoRoom as error:
                self._doomed = error.number
                raise
        for place, rise in program.rises.items():
            if rise.allocates:
                self._raise_peak(self._peak(phase), place, rise)
        self._allocations += program.allocations
        if self._recordings:
            self._log.append(call)
        if self._listener is not None:
            self._listener.on_repeated(call)
        return call.first

    def run_out(self, program: MemoryProgram) -> None:
        """Count a call that cannot be executed, up to the allocation for which there is no room. Raises OutOfMemory."""
        for event in program.flat(self._allocations + 1):
            if event.allocates:
                self._lay(event.allocation)
                self.carry(event.allocation)
                self._note_allocation(event.allocation, self._peak(scopes.current().phase))
            else:
                self.free(event.allocation)

    def _raise_peak(self, peak: PhasePeak, place: str, rise: Rise) -> None:
        highest = self.allocated[place] + rise.allocated
        if place == "host":
            peak.host_allocated = max(peak.host_allocated, highest)
        elif highest > peak.allocated:
            peak.allocated = highest
            peak.by_category = dict(self.totals["card"])
            for name, change in rise.by_category:
                peak.by_category[name] += change
