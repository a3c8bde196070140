"""Whether what stands on a card fits, as the caching allocator lays it. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from liveavatar_core.errors import GIB, BadData, OutOfMemory

AllocatorOutcome = Literal["fits", "fits with retries", "tensors", "fragmentation"]


@dataclass(frozen=True, kw_only=True)
class AllocatorVerdict:
    """What the caching allocator of one rank's card came to."""

    outcome: AllocatorOutcome
    """fits; fits with retries: cached segments had to be given back to make room, which stops the card each time;
    does not fit: tensors alone are too much, or fragmentation leaves no piece that is large enough."""
    reserved_peak_bytes: int
    """Most bytes that the allocator held: tensors, and what is cached for more of them."""
    retries: int
    """How often it gave its cached segments back."""

    def __post_init__(self) -> None:
        if self.outcome == "fits" and self.retries:
            raise BadData(f"outcome fits with {self.retries} retries", "call it fits with retries")

    @classmethod
    def of(cls, peaks: dict[str, int], retries: int, failure: OutOfMemory | None) -> AllocatorVerdict:
        """The verdict on a replay: most bytes reserved in each phase, retries, and what ended it."""
        outcome: AllocatorOutcome = "fits with retries" if retries else "fits"
        if failure is not None:
            outcome = "tensors" if failure.shortage.reserved is None else "fragmentation"
        return cls(outcome=outcome, reserved_peak_bytes=max(peaks.values(), default=0), retries=retries)

    @property
    def fits(self) -> bool:
        """Whether it fits at all."""
        return self.outcome in ("fits", "fits with retries")

    def is_better_than(self, other: AllocatorVerdict) -> bool:
        """Whether it fits where the other does not, or with fewer retries."""
        return self.fits and (not other.fits or self.retries < other.retries)

    def __str__(self) -> str:
        reserved = f"{self.reserved_peak_bytes / GIB:.2f} GiB reserved"
        return (
            f"{self.outcome} ({self.retries} retries, {reserved})" if self.retries else f"{self.outcome} ({reserved})"
        )
