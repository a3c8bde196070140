"""Typed errors. Each reads as two lines: what was given or measured against what is allowed; `next:` what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GIB = 1024**3


class LiveAvatarError(Exception):
    """Base of every error that this project raises on purpose."""

    def __init__(self, what: str, next_step: str) -> None:
        """`what`: the value against what is allowed. `next_step`: the command or change to try."""
        super().__init__(what, next_step)
        self.what = what
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.what}\nnext: {self.next_step}"


class BadInput(LiveAvatarError):
    """A file or an argument that a person gave cannot be used."""


class CannotWrite(BadInput):
    """What was made could not be written: the disk is full, read-only or gone."""


class CannotPin(LiveAvatarError):
    """The system refuses to keep pages of host memory where they are."""


class InvalidRecipe(LiveAvatarError):
    """A recipe that no machine could run; raised at construction."""


class BadData(LiveAvatarError):
    """A data file of the suite (cards, tiers, baseline, record, waiver) is broken."""


class CheckpointError(LiveAvatarError):
    """A checkpoint does not match the model; names the file and the key."""


@dataclass(frozen=True, kw_only=True)
class MemoryShortage:
    """A request that a memory could not meet. All sizes are bytes."""

    rank: int
    """The rank that asked."""
    phase: str
    """What it was doing, one of scopes.PHASES."""
    category: str
    """What the bytes were for, one of scopes.CATEGORIES; `host` where host memory is too small."""
    requested: int | None
    """Bytes asked for; None: a library ran out that does not say of how many."""
    free: int
    """Bytes that a request could have had at that moment."""
    capacity: int
    """Bytes that the rank may hold in that memory."""
    holders: Mapping[str, int] = field(default_factory=dict)
    """Bytes held at that moment, by category."""
    reserved: int | None = None
    """Bytes of segments in which that card's allocator found no piece for the request, although tensors alone would
    fit: fragmentation. None: tensors are too much."""

    @property
    def shortfall(self) -> int | None:
        """Bytes that were lacking: beyond what tensors leave, or beyond what segments leave where that was too little.

        Of the latter at least one block of 512, as a request takes a whole segment. None: nobody says how many.
        """
        if self.requested is None:
            return None
        if self.reserved is None:
            return self.requested - self.free
        return max(self.requested - (self.capacity - self.reserved), 512)

    def __str__(self) -> str:
        asked = "an unknown size" if self.requested is None else f"{self.requested / GIB:.2f} GiB"
        largest = sorted(self.holders.items(), key=lambda item: -item[1])[:3]
        held = ", ".join(f"{name} {size / GIB:.2f}" for name, size in largest)
        pieces = "" if self.reserved is None else f" but in pieces, {self.reserved / GIB:.2f} in segments"
        return (
            f"rank {self.rank}, {self.phase}: {asked} asked for"
            f" {self.category.replace('_', ' ')}, {self.free / GIB:.2f} GiB free of {self.capacity / GIB:.2f}{pieces}"
            f" (held: {held or 'nothing'})"
        )


class OutOfMemory(LiveAvatarError):
    """A card cannot hold what was asked of it; `shortage` says who asked for how many bytes, and who held the rest."""

    def __init__(self, shortage: MemoryShortage) -> None:
        grown = "" if shortage.reserved is None else ", which also says where --expandable_segments is enough"
        step = f"ask for a layout that fits: python -m liveavatar_core fit --cards COUNTxSIZE{grown}"
        super().__init__(str(shortage), step)
        self.shortage = shortage

    def __reduce__(self) -> tuple[type[OutOfMemory], tuple[MemoryShortage]]:
        """Crosses process borders whole: by the shortage, as pickle would call the class with the text alone."""
        return type(self), (self.shortage,)
