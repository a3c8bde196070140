"""Typed errors. Each reads as two lines: what was given or measured against what is allowed; `next:` what to do."""

from __future__ import annotations

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


class InvalidRecipe(LiveAvatarError):
    """A recipe that no machine could run; raised at construction."""


class BadData(LiveAvatarError):
    """A data file of the suite (cards, tiers, baseline, record, waiver) is broken."""


class CheckpointError(LiveAvatarError):
    """A checkpoint does not match the model; names the file and the key."""


class OutOfMemory(LiveAvatarError):
    """A card cannot hold what was asked of it. All sizes are bytes."""

    def __init__(
        self,
        *,
        rank: int,
        phase: str,
        category: str,
        requested: int,
        free: int,
        capacity: int,
        holders: dict[str, int] | None = None,
    ) -> None:
        """`holders`: bytes held at that moment, by category; `free`: bytes left of `capacity`."""
        self.rank, self.phase, self.category = rank, phase, category
        self.requested, self.free, self.capacity = requested, free, capacity
        self.holders = dict(holders or {})
        held = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.largest_holders())
        super().__init__(
            f"rank {rank}, {phase}: {requested / GIB:.2f} GiB asked for {category.replace('_', ' ')},"
            f" {free / GIB:.2f} GiB free of {capacity / GIB:.2f} (held: {held or 'nothing'})",
            "ask for a layout that fits: python -m liveavatar_core fit --cards COUNTxSIZE",
        )

    def largest_holders(self, count: int = 3) -> list[tuple[str, int]]:
        """The `count` categories that held most, largest first."""
        return sorted(self.holders.items(), key=lambda item: -item[1])[:count]

    def __reduce__(self) -> tuple:
        """Crosses process borders whole."""
        fields = ("rank", "phase", "category", "requested", "free", "capacity", "holders")
        return _rebuild_out_of_memory, ({name: getattr(self, name) for name in fields},)


def _rebuild_out_of_memory(fields: dict) -> OutOfMemory:
    return OutOfMemory(**fields)
