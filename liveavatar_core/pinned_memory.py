"""Host memory whose pages stay where they are, exactly as much as is needed."""

from __future__ import annotations

import weakref

import torch

from liveavatar_core.errors import GIB, CannotPin

LEAST_EXACT = 2**20
"""Bytes from which on a tensor has pages of its own. What is smaller may share one, which cannot be pinned twice."""
_PORTABLE = 1
"""Pinned for every card (cudaHostRegisterPortable)."""


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` of host memory in pages that stay where they are, so that copies to a card need not wait.

    It is pinned where it stands, and takes what it has: torch's own pinned memory comes in powers of two, 40 GiB for
    the 26 of the transformer's blocks. Only what is small is copied there.

    Raises:
        CannotPin: the system gives no more pages that stay.
    """
    if tensor.nbytes < LEAST_EXACT:
        return tensor.pin_memory()
    storage, cuda = tensor.untyped_storage(), torch.cuda.cudart()
    address = storage.data_ptr()
    status = int(cuda.cudaHostRegister(address, storage.nbytes(), _PORTABLE))
    if status:
        raise CannotPin(
            f"{storage.nbytes() / GIB:.2f} GiB of host memory could not be pinned (CUDA error {status})",
            "free host memory, raise `ulimit -l`, or choose a layout that offloads less",
        )
    weakref.finalize(storage, cuda.cudaHostUnregister, address)
    return tensor
