"""Every way in which a card is said to be full becomes one error, with the numbers that there are."""

from __future__ import annotations

import pytest
import torch

from liveavatar_core import scopes
from liveavatar_core.errors import GIB, OutOfMemory
from liveavatar_core.hardware.oom_message import read_message
from liveavatar_core.parallel.out_of_memory import CardBytes, typed_out_of_memory

TAIL = (
    " If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to"
    " avoid fragmentation.  See documentation for Memory Management "
    " (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)
WHOLE_CARD = (
    "CUDA out of memory. Tried to allocate 19.68 GiB. GPU 0 has a total capacity of 23.68 GiB of which 11.88 GiB"
    " is free. Including non-PyTorch memory, this process has 11.79 GiB memory in use. Of the allocated memory"
    " 11.44 GiB is allocated by PyTorch, and 43.59 MiB is reserved by PyTorch but unallocated." + TAIL
)
"""Recorded from a 24 GB card."""
FRAGMENTED = (
    "CUDA out of memory. Tried to allocate 764.00 MiB. GPU 0 has a total capacity of 47.37 GiB of which 442.88 MiB is"
    " free. Including non-PyTorch memory, this process has 46.93 GiB memory in use. Of the allocated memory 42.40 GiB"
    " is allocated by PyTorch, and 3.24 GiB is reserved by PyTorch but unallocated." + TAIL
)
"""Recorded from a 48 GB card: more is cached than is asked for, in pieces that are too small."""
CAPPED = (
    "CUDA out of memory. Tried to allocate 4.17 GiB. GPU 0 has a total capacity of 139.80 GiB of which 51.12 GiB"
    " is free. 22.15 GiB allowed; Of the allocated memory 19.52 GiB is allocated by PyTorch, and 2.00 GiB is"
    " reserved by PyTorch but unallocated." + TAIL
)
"""The form of c10/cuda/CUDACachingAllocator.cpp under set_per_process_memory_fraction."""
LIBRARIES = (
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com.",
    "CUDA driver error: out of memory",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "NCCL error in: ProcessGroupNCCL.cpp:3680, unhandled cuda error, NCCL version 2.28.9\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'",
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 'out of memory'",
)
CARD = CardBytes(capacity=24 * GIB, allocated=20 * GIB, reserved=22 * GIB, free=1 * GIB)


def shortage(error: Exception, place: str = "card"):
    """What becomes of an error that is raised while a cache is made in phase prefill."""
    saved: list[str] = []
    with pytest.raises(OutOfMemory) as caught, typed_out_of_memory(3, lambda: CARD, lambda: saved.append("snapshot")):  # noqa: SIM117
        with scopes.phase("prefill"), scopes.category("kv_cache"), scopes.place(place):
            raise error
    assert saved == ["snapshot"]
    assert scopes.scope_of(caught.value).phase == "prefill"
    return caught.value.shortage


def test_the_message_of_a_whole_card():
    message = read_message(WHOLE_CARD)
    assert message.requested == round(19.68 * GIB)
    assert (message.total, message.allowed) == (round(23.68 * GIB), None)
    assert message.free == round(11.88 * GIB)
    assert message.cached == round(43.59 * 1024**2)


def test_the_message_of_a_capped_process():
    message = read_message(CAPPED)
    assert message.capacity == round(22.15 * GIB)
    assert message.free == pytest.approx(0.63 * GIB, abs=4)


@pytest.mark.parametrize("text", [WHOLE_CARD, FRAGMENTED, CAPPED], ids=["whole", "fragmented", "capped"])
def test_what_was_lacking_is_never_less_than_nothing(text: str):
    told = shortage(torch.OutOfMemoryError(text))
    assert (told.rank, told.phase, told.category) == (3, "prefill", "kv_cache")
    assert told.shortfall is not None
    assert told.shortfall > 0


@pytest.mark.parametrize("text", LIBRARIES)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError, torch.distributed.DistBackendError])
def test_a_library_that_gets_no_memory_is_the_same_error(kind: type[Exception], text: str):
    told = shortage(kind(text))
    assert (told.phase, told.category, told.capacity, told.free) == ("prefill", "kv_cache", 24 * GIB, 1 * GIB)
    assert (told.requested, told.shortfall) == (None, None)
    assert told.holders == {"allocated": 20 * GIB, "cached": 2 * GIB}
    assert "an unknown size asked for kv cache" in str(told)


def test_nccl_says_how_much_it_asked_for():
    told = shortage(RuntimeError("ncclUnhandledCudaError\nLast error:\nFailed to CUDA calloc 4194304 bytes"))
    assert told.requested == 4194304


def test_pinned_host_memory_is_not_the_cards():
    assert shortage(torch.AcceleratorError("CUDA error: out of memory"), place="host").category == "host"
    assert shortage(RuntimeError("Failed to CUDA host alloc 4194304 bytes")).category == "host"


@pytest.mark.parametrize("text", ["CUDA error: an illegal memory access was encountered", "Cuda failure 201 'invalid'"])
def test_another_error_stays_what_it_is(text: str):
    with pytest.raises(RuntimeError, match=text) as caught, typed_out_of_memory(0, lambda: CARD):
        raise RuntimeError(text)
    assert not isinstance(caught.value, OutOfMemory)
