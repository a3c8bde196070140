"""What births and deaths say beside peaks: how full the card was over time, and what an allocator would reserve."""

from __future__ import annotations

from liveavatar_core import scopes
from liveavatar_core.simulation.allocator import CachingAllocator, Reserved
from liveavatar_core.simulation.ledger import Holding
from liveavatar_core.simulation.timeline import Timeline


class CardTrace:
    """Listens to the ledger of one rank."""

    def __init__(self, capacity: int | None = None) -> None:
        """`capacity`: usable bytes of the card; None is unlimited."""
        self._allocator, self.timeline = CachingAllocator(capacity), Timeline()

    @property
    def reserved(self) -> Reserved:
        """What the caching allocator would keep reserved; within the capacity of the card."""
        return self._allocator.result

    def __call__(self, signed: int, holding: Holding) -> None:
        """Replay a birth (serial), or a death (minus the serial), on the card."""
        self.timeline(signed, holding)
        if holding.place != "card":
            return
        if signed > 0:
            self._allocator.allocate(signed, holding.size, scopes.current().phase)
        else:
            self._allocator.free(-signed)
