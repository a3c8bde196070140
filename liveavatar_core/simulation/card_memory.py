"""What allocations and frees say beside peaks: how full the card was, and what an allocator would reserve."""

from __future__ import annotations

from liveavatar_core import scopes
from liveavatar_core.simulation.alloc_events import Event, ReplayedCall
from liveavatar_core.simulation.allocator import CachingAllocator, Reserved
from liveavatar_core.simulation.memory_timeline import TimelineBuilder


class CardMemory:
    """Listens to the tracker of one rank."""

    def __init__(self, capacity: int | None = None) -> None:
        """`capacity`: usable bytes of the card; None is unlimited."""
        self._allocator, self.timeline = CachingAllocator(capacity), TimelineBuilder()

    @property
    def reserved(self) -> Reserved:
        """What the caching allocator would keep reserved; within the capacity of the card."""
        return self._allocator.result

    def on_event(self, event: Event) -> None:
        """Replay an allocation or a free on the card."""
        self.timeline.on_event(event)
        allocation = event.allocation
        if allocation.place != "card":
            return
        if event.allocates:
            self._allocator.allocate(allocation.number, allocation.size, scopes.current().phase)
        else:
            self._allocator.free(allocation.number)

    def on_repeated(self, call: ReplayedCall) -> None:
        """Replay a call on the card, as a whole."""
        self.timeline.on_repeated(call)
        self._allocator.repeat(call, scopes.current().phase)
