"""The messages of a card, or of pinned host memory, that is full: torch's own and those of libraries. Free of torch.

Torch's form: c10/cuda/CUDACachingAllocator.cpp, where `allowed` stands there only if a process was capped. It gives
back all that it can before it gives up, so that what is cached then lies in pieces that are too small.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LIBRARIES = re.compile(
    r"CUDA (driver )?error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|CU(BLAS|SOLVER|SPARSE)_STATUS_ALLOC_FAILED|CUDNN_STATUS_(\w+_)?ALLOC(ATION)?_FAILED"
    r"|Cuda failure (2\b|(\d+ )?'out of memory')|Failed to CUDA (host )?[mc]?alloc"
)
"""How CUDA, cuBLAS, cuDNN and NCCL say that they got no memory."""
HOST = re.compile(r"cudaHostAlloc|cudaHostRegister|cuMemHostAlloc|pin_memory|CUDA host [mc]?alloc")
"""The words that tell that it was pinned host memory."""
_UNITS = {"bytes": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SIZE = r"(\d+(?:\.\d+)?) (bytes|KiB|MiB|GiB)"


@dataclass(frozen=True, kw_only=True)
class OutOfMemoryMessage:
    """The numbers of torch's message, in bytes, exact to the two decimals that it prints."""

    requested: int
    """Bytes that were asked for, rounded up as the allocator does."""
    total: int | None
    """Bytes of memory on the card."""
    free_on_card: int | None
    """Bytes that nobody held on the card."""
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
        """Bytes that one more request could have had; 0 if the message does not say."""
        allowed = self.capacity - (self.allocated or 0) - (self.cached or 0)
        return max(0, allowed if self.free_on_card is None else min(allowed, self.free_on_card))


def says_out_of_memory(text: str) -> bool:
    """Whether a message says that a card, or pinned host memory, has no room."""
    return "out of memory. Tried to allocate" in text or bool(LIBRARIES.search(text))


def requested_of_library(text: str) -> int | None:
    """Bytes that NCCL asked for; None: the message does not say."""
    found = re.search(r"Failed to CUDA (?:host )?[mc]?alloc(?: async)? (\d+) bytes", text)
    return int(found[1]) if found else None


def read_message(text: str) -> OutOfMemoryMessage | None:
    """The numbers; None if it is no message of the allocator (cuBLAS and NCCL have messages of their own)."""
    requested = _size(rf"Tried to allocate {_SIZE}", text)
    if requested is None:
        return None
    return OutOfMemoryMessage(
        requested=requested,
        total=_size(rf"total capaci?ty of {_SIZE}", text),
        free_on_card=_size(rf"of which {_SIZE} is free", text),
        allowed=_size(rf"{_SIZE} allowed", text),
        allocated=_size(rf"{_SIZE} is allocated by PyTorch", text),
        cached=_size(rf"{_SIZE} is reserved by PyTorch but unallocated", text),
    )


def _size(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None
