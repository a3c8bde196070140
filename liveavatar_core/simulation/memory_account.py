"""Accounts of a rank's bytes by memory, category and phase, which refuse what a card could not hold. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from liveavatar_core import scopes
from liveavatar_core.errors import MemoryShortage, OutOfMemory
from liveavatar_core.simulation.alloc_events import Allocation, Event, EventListener, MemoryProgram, ReplayedCall, Rise

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


UNLIMITED = Capacity()


class MemoryAccount:
    """Counts the bytes of one rank as they are allocated and freed. Raises OutOfMemory at its capacity."""

    def __init__(self, *, rank: int = 0, capacity: Capacity = UNLIMITED, listener: EventListener | None = None) -> None:
        """Count for `rank`; raise at `capacity`. `listener` hears of every allocation and free that takes bytes."""
        self.rank, self.capacity = rank, capacity
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
        self._log: list[Event | ReplayedCall] = []
        self._recordings = 0

    def allocate(self, nbytes: int) -> Allocation:
        """Count `nbytes`, rounded up, for what `scopes` say. Raises OutOfMemory."""
        scope = scopes.current()
        size = -(-nbytes // ALLOCATION_UNIT) * ALLOCATION_UNIT
        self._check(size, scope)
        self._allocations += 1
        allocation = Allocation(self._allocations, size, scope.place, scope.category)
        self.carry(allocation)
        self._note_allocation(allocation, self._peak(scope.phase))
        return allocation

    def free(self, allocation: Allocation) -> None:
        """Count an allocation no longer."""
        self.totals[allocation.place][allocation.category] -= allocation.size
        self.allocated[allocation.place] -= allocation.size
        if allocation.size and not self._silent:
            self._tell(Event(False, allocation))

    def carry(self, allocation: Allocation) -> None:
        """Count what is as good as allocated already: it changes the totals, and no peak."""
        self.totals[allocation.place][allocation.category] += allocation.size
        self.allocated[allocation.place] += allocation.size

    def _check(self, size: int, scope: scopes.Scope) -> None:
        capacity = self.capacity.card if scope.place == "card" else self.capacity.host
        if capacity is None or self.allocated[scope.place] + size <= capacity:
            return
        raise OutOfMemory(
            MemoryShortage(
                rank=self.rank,
                phase=scope.phase,
                category=scope.category if scope.place == "card" else "host",
                requested=size,
                free=capacity - self.allocated[scope.place],
                capacity=capacity,
                holders={name: held for name, held in self.totals[scope.place].items() if held},
            )
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
            peak = self.peaks[phase] = PhasePeak()
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
        """
        phase = scopes.current().phase
        for place, rise in program.rises.items():
            if rise.allocates:
                self._raise_peak(self._peak(phase), place, rise)
        call = ReplayedCall(program, self._allocations + 1, leftover if program.frees_leftover else None)
        self._allocations += program.allocations
        if self._recordings:
            self._log.append(call)
        if self._listener is not None:
            self._listener.on_repeated(call)
        return call.first

    def _raise_peak(self, peak: PhasePeak, place: str, rise: Rise) -> None:
        highest = self.allocated[place] + rise.allocated
        if place == "host":
            peak.host_allocated = max(peak.host_allocated, highest)
        elif highest > peak.allocated:
            peak.allocated = highest
            peak.by_category = dict(self.totals["card"])
            for name, change in rise.by_category:
                peak.by_category[name] += change
