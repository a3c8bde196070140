"""A card that is full, in whatever words torch or a library says it, as the one error that has the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from liveavatar_core import scopes
from liveavatar_core.errors import MemoryShortage, OutOfMemory
from liveavatar_core.hardware.oom_message import HOST, read_message, requested_of_library, says_out_of_memory


@dataclass(frozen=True, kw_only=True)
class CardBytes:
    """Bytes of a rank's card at one moment."""

    capacity: int
    """Bytes that the rank may hold."""
    allocated: int
    """Bytes held by tensors."""
    reserved: int
    """Bytes that the allocator holds, those of tensors included."""
    free: int
    """Bytes that nobody holds."""


def read_card(capacity: int | None = None) -> CardBytes:
    """The current card's bytes. `capacity`: what the rank may hold; None: the whole card."""
    free, total = torch.cuda.mem_get_info()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    return CardBytes(capacity=capacity or total, allocated=allocated, reserved=reserved, free=free)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, of any class, says that a card or pinned host memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or says_out_of_memory(str(error))


@contextmanager
def typed_out_of_memory(
    rank: int, card: Callable[[], CardBytes] = read_card, before: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Raise OutOfMemory for every out-of-memory error that is raised inside.

    `card`: reads the card. `before`: is called first, while all is still held.
    """
    try:
        yield
    except RuntimeError as error:  # what torch, cuBLAS, cuDNN and NCCL raise derives from it
        if not is_out_of_memory(error):
            raise
        before()
        raise OutOfMemory(shortage_of(error, rank, card())) from error


def shortage_of(error: BaseException, rank: int, card: CardBytes) -> MemoryShortage:
    """The numbers of an out-of-memory error: those of its message, and the card's where the message has none."""
    scope, text = scopes.scope_of(error), str(error)
    numbers = read_message(text)
    on_host = scope.place == "host" or bool(HOST.search(text))
    left = max(0, min(card.free, card.capacity - card.reserved))
    return MemoryShortage(
        rank=rank,
        phase=scope.phase,
        category="host" if on_host and numbers is None else scope.category,
        requested=numbers.requested if numbers else requested_of_library(text),
        free=numbers.free if numbers and numbers.capacity else left,
        capacity=card.capacity,
        holders={"allocated": card.allocated, "cached": card.reserved - card.allocated},
    )
