"""CPU kernels for bfloat16 that multiply in float32 and round the result once, as a card's kernels do.

Without bfloat16 units (AVX-512 on x86) torch's own take 10 to 40 times as long: they convert number by number. These
stand below every dispatch mode, so that what they hold for a moment is counted by no tracker, and above no autograd
formula, so that training takes them too.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from liveavatar_core import torch_private

PRODUCTS = ("aten::addmm", "aten::mm", "aten::baddbmm", "aten::bmm")
"""What multiplies; attention does not gain: its own kernel adds up in float32 already."""

LEAST_CHANNELS = 16
"""Channels of a group, in a convolution that oneDNN gets right in bfloat16 whatever its units."""

HAS_ONEDNN = torch.backends.mkldnn.is_available()

Kernel = Callable[..., Any]


@cache
def install_cpu_kernels() -> str:
    """Register, once a process, what this processor needs; returns what products are computed in, for records.

    "float32, rounded": bfloat16 is multiplied in float32 and the result rounded. "native": torch's own kernels.
    """
    native = has_bfloat16_units()
    _replace("aten::linalg_vector_norm", _vector_norm)
    _replace("aten::convolution", partial(_convolution, native))
    for name in () if native else PRODUCTS:
        _replace(name, _in_float32)
    return "native" if native else "float32, rounded"


_LIBRARY = torch.library.Library("aten", "IMPL")
"""Registrations end with it."""


def has_bfloat16_units() -> bool:
    """Whether torch has bfloat16 kernels for this processor that are worth taking; heeds ATEN_CPU_CAPABILITY."""
    if platform.machine() in ("x86_64", "AMD64"):
        return torch.backends.cpu.get_cpu_capability() == "AVX512"
    return HAS_ONEDNN and torch_private.has_onednn_bfloat16()


def _replace(name: str, kernel: Kernel) -> None:
    """Put `kernel` in the place of torch's CPU kernel of that name, which it is given first."""
    before = torch.library.get_kernel(name, "CPU")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        _LIBRARY.impl(name, partial(kernel, before.call_boxed), "CPU", with_keyset=True)


def _in_float32(kernel: Kernel, keyset: Any, *args: Any, **options: Any) -> Any:
    if not _is_narrow(args[0]):
        return kernel(keyset, *args, **options)
    widened = (each.float() if _is_narrow(each) else each for each in args)
    return kernel(keyset, *widened, **options).bfloat16()


def _convolution(native: bool, kernel: Kernel, keyset: Any, *args: Any) -> Any:
    """A convolution; those over time go to oneDNN, as torch unfolds the video in memory and takes three times as long.

    In bfloat16 too few channels a group are widened even with units: oneDNN's kernels for AMX give wrong numbers for 3
    to 15 of them (the 14B has 64).
    """
    x, weight, bias, stride, padding, dilation, transposed, _, groups = args
    if native and _is_narrow(x) and not (groups > 1 and weight.shape[1] < LEAST_CHANNELS):
        return kernel(keyset, *args)
    if weight.ndim < 5 or transposed or weight[0, 0].numel() == 1 or not HAS_ONEDNN or x.dtype == torch.float64:
        return _in_float32(kernel, keyset, *args)
    wide = (x.float(), weight.float(), None if bias is None else bias.float())
    return torch.ops.aten.mkldnn_convolution(*wide, padding, stride, dilation, groups).to(x.dtype)


def _vector_norm(kernel: Kernel, keyset: Any, x: Any, *args: Any, dtype: torch.dtype | None = None) -> Any:
    """The Euclidean length over some axes; torch's own kernel takes 40 times as long where they are not the last."""
    defaults: list[Any] = [2, None, False]
    order, dims, keep = [*args, *defaults[len(args) :]]
    if order != 2 or not dims or {-1, x.ndim - 1} & set(dims) or x.dtype not in (torch.float32, torch.bfloat16):
        return kernel(keyset, x, *args, dtype=dtype)
    return x.float().square().sum(dims, keepdim=keep).sqrt_().to(dtype or x.dtype)


def _is_narrow(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16
