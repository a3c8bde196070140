"""A card that is not there: what code for CUDA asks of torch is answered without a driver. For fake tensors alone.

Tensors on it say `cuda`, so everything takes the branches that it takes on a card. What torch would ask the driver
about is decided here as it decides there: which attention kernel, whether host memory is pinned, one fused norm. It
works in a build of torch without CUDA too; that both builds do the same is what `make cuda-dry-run` finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from liveavatar_core import torch_private
from liveavatar_core.simulation.indexing import get_item, set_item
from liveavatar_core.torch_private import FakeTensor, replaced, storage_key

CARD = torch.device("cuda", 0)
"""What tensors on it say; with an index, as a build without CUDA cannot work one out."""
CAPABILITY = (8, 9)
"""Compute capability of Ada. Only whether float8 can be sent depends on it, and nothing is."""

FLASH_DTYPES = (torch.bfloat16, torch.float16)
FLASH_WIDTH = 256
"""The widest head that flash attention takes."""
BIAS_ALIGNMENT = 16
"""To a multiple of so many keys an attention bias is padded for the memory-efficient kernel."""

aten = torch.ops.aten
GUARDED: dict[str, Any] = {
    "copy_": aten.copy_,
    "contiguous": aten.contiguous,
    "nonzero": aten.nonzero,
    "__invert__": aten.bitwise_not,
    "__getitem__": get_item,
    "__setitem__": set_item,
}
"""Methods that make the driver choose the tensor's card, and the operations that they call then."""


class PinnedPages:
    """Stands for `torch.cuda.cudart()`: host memory that was registered, and is pinned therefore."""

    def __init__(self) -> None:
        self._pinned: set[int] = set()

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:  # noqa: N802 - CUDA's own name
        """Pin; 0 says that it went well."""
        self._pinned.add(address)
        return 0

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802 - CUDA's own name
        """Pin no longer."""
        self._pinned.discard(address)
        return 0

    def is_pinned(self, tensor: Tensor, *_: Any) -> bool:
        """Stands for `Tensor.is_pinned`."""
        return storage_key(tensor.untyped_storage()) in self._pinned

    def pin_memory(self, tensor: Tensor, *_: Any) -> Tensor:
        """Stands for `Tensor.pin_memory`: a copy, in a piece that is a power of two as torch's are."""
        taken = torch.empty(_power_of_two(tensor.nbytes), dtype=torch.uint8)
        self._pinned.add(storage_key(taken.untyped_storage()))
        return taken[: tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)


def _power_of_two(nbytes: int) -> int:
    return 1 << max(nbytes - 1, 0).bit_length()


@contextmanager
def fake_card() -> Iterator[None]:
    """Inside, torch answers as with one card, to the one process that works on it."""
    pages = PinnedPages()
    answers: dict[str, Any] = {
        "Stream": torch.cpu.Stream,
        "Event": torch.cpu.Event,
        "current_stream": torch.cpu.current_stream,
        "default_stream": torch.cpu.current_stream,
        "stream": torch.cpu.stream,
        "synchronize": torch.cpu.synchronize,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: CARD.index,
        "set_device": lambda device: None,
        "get_device_capability": lambda device=None: CAPABILITY,
        "cudart": lambda: pages,
    }
    _fuse_rms_norm()
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(replaced(torch.cuda, name, _always(answer)))
        methods = GUARDED | {"is_pinned": pages.is_pinned, "pin_memory": pages.pin_memory}
        for name, method in methods.items():
            stack.enter_context(replaced(Tensor, name, partial(_method, method)))
        stack.enter_context(replaced(torch.nn.functional, "scaled_dot_product_attention", _attention_of))
        stack.enter_context(replaced(torch, "tensor", _sent_from_host))
        stack.enter_context(replaced(torch.UntypedStorage, "data_ptr", partial(_method, storage_key)))
        stack.enter_context(replaced(Tensor, "data", _data_with_device))
        yield


@cache
def _fuse_rms_norm() -> None:
    """Have fake tensors see `rms_norm` as one operation, also in a build without a kernel of CUDA for it."""
    if torch.version.cuda is None:
        _LIBRARY.impl(torch_private.FUSED_RMS_NORM, _no_kernel, "CUDA")


_LIBRARY = torch.library.Library("aten", "IMPL")
"""Registrations end with it."""


def _no_kernel(*_: Any) -> None:
    raise NotImplementedError("this build of torch has no kernels for cards")


def _data_with_device(before: Any) -> property:
    """`Tensor.data`; to set it changes where a fake tensor says that it stands, too."""

    def take(tensor: Tensor, value: Tensor) -> None:
        before.__set__(tensor, value)
        if isinstance(tensor, FakeTensor) and isinstance(value, FakeTensor):
            tensor.fake_device = value.fake_device

    return property(before.__get__, take)


def _always(answer: Any) -> Callable[[Any], Any]:
    return lambda before: answer


def _sent_from_host(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor`: numbers are put down in host memory, and copied to where they are wanted."""

    def tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        made = make(data, **options)
        return made if device is None else made.to(device)

    return tensor


def _method(function: Callable[..., Any], before: Any) -> Callable[..., Any]:
    """A function that a class takes for a method; operations are none by themselves."""
    return lambda *args, **kwargs: function(*args, **kwargs)


def _attention_of(on_host: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`scaled_dot_product_attention` by where its tensors stand."""
    return lambda query, *args, **kwargs: (attention if query.is_cuda else on_host)(query, *args, **kwargs)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` as Ampere and Ada cards choose: flash where it can be, else memory-efficient.

    Torch's own choice asks the driver which card it is (sdp_utils.cpp); without one it takes neither.
    """
    if dropout_p or is_causal or enable_gqa:
        raise NotImplementedError("the encoders ask for no dropout, causal or grouped attention")
    if attn_mask is None and query.dtype in FLASH_DTYPES and query.shape[-1] <= FLASH_WIDTH:
        return torch_private.flash_attention_cuda(query, key, value, scale=scale)[0]
    bias = None if attn_mask is None else _as_bias(attn_mask, query, key)
    return torch_private.efficient_attention_cuda(query, key, value, bias, False, scale=scale)[0]


def _as_bias(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """What is added to the scores: of the queries' type, for every head, each row at an aligned address."""
    if mask.dtype == torch.bool:
        zeros = torch.zeros_like(mask, dtype=query.dtype)
        mask = zeros.masked_fill_(mask.logical_not(), float("-inf"))
    excess = -mask.shape[-1] % BIAS_ALIGNMENT
    if excess:
        mask = torch.nn.functional.pad(mask, (0, excess))[..., : mask.shape[-1]]
    return mask.expand(*query.shape[:3], key.shape[2])
