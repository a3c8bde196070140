"""The numbers in torch's own out-of-memory message. Free of torch.

Its form: c10/cuda/CUDACachingAllocator.cpp, where `allowed` stands there only if a process was capped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = {"bytes": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SIZE = r"(\d+(?:\.\d+)?) (bytes|KiB|MiB|GiB)"


@dataclass(frozen=True, kw_only=True)
class OutOfMemoryMessage:
    """The numbers of torch's message, in bytes, exact to the two decimals that it prints."""

    requested: int
    """Bytes that were asked for, rounded up as the allocator does."""
    total: int | None
    """Bytes of memory on the card."""
    allowed: int | None
    """Bytes that the process may take of it; None: it was not capped."""
    allocated: int | None
    """Bytes held by tensors."""
    cached: int | None
    """Bytes held by the allocator, for no tensor."""

    @property
    def capacity(self) -> int:
        """Bytes that the process could hold at most; 0 if the message does not say."""
        return self.allowed or self.total or 0

    @property
    def free(self) -> int:
        """Bytes that tensors could still have taken; 0 if the message does not say."""
        return max(0, self.capacity - (self.allocated or 0))


def read_message(text: str) -> OutOfMemoryMessage | None:
    """The numbers; None if it is no message of the allocator (cuBLAS and NCCL have messages of their own)."""
    requested = _size(rf"Tried to allocate {_SIZE}", text)
    if requested is None:
        return None
    return OutOfMemoryMessage(
        requested=requested,
        total=_size(rf"total capaci?ty of {_SIZE}", text),
        allowed=_size(rf"{_SIZE} allowed", text),
        allocated=_size(rf"{_SIZE} is allocated by PyTorch", text),
        cached=_size(rf"{_SIZE} is reserved by PyTorch but unallocated", text),
    )


def _size(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None
