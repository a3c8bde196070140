"""torch's fake tensors, quicker: what a run does most often is answered without torch's general machinery.

Loading, executing and repeating are some 100 000 operations, nineteen in twenty of which are views, empty tensors,
copies and the question where a tensor stands. A view is made by the tensor's own shape and strides, a new tensor
directly; of what computes, the shape of the result is kept by the shapes that were given. All else, and whatever is
out of the ordinary about an argument, goes to FakeTensorMode, whose answers are the first ones here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.distributed.fsdp  # registers its operations
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from liveavatar_core.torch_private import (
    FakeTensor,
    PlainFakeMode,
    fake_from_meta,
    foreach_copy,
    in_meta_kernel,
    innermost_fake_mode,
    schema_of,
    storage_key,
    without_dispatch,
)

aten = torch.ops.aten

_VIEWS = frozenset(
    {
        aten.alias.default,
        aten.as_strided.default,
        aten.detach.default,
        aten.expand.default,
        aten.permute.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.squeeze.dim,
        aten.t.default,
        aten.transpose.int,
        aten.unbind.int,
        aten.unsqueeze.default,
        aten.view.default,
        aten.view.dtype,
        aten.view_as_complex.default,
        aten.view_as_real.default,
    }
)
_COPIES = frozenset({foreach_copy.default, torch.ops.fsdp.split_with_sizes_copy.default})
"""Write into what they are given, and give nothing."""
WHERE = torch.ops.prim.device.default
_HERE = torch.device("cpu")
_DEVICES = (_HERE, torch.device("cuda", 0))
"""Where a run makes its tensors: in host memory, or on a card."""


class _Strange(Exception):
    """An argument or a result that only FakeTensorMode knows how to take."""


class _Made(NamedTuple):
    """A new tensor, dense or not, in storage of its own."""

    shape: tuple[int, ...]
    """Sizes of the tensor."""
    stride: tuple[int, ...]
    """Strides of the tensor, in elements."""
    dtype: torch.dtype
    """Type of the elements."""
    device: torch.device
    """Where it says that it stands."""


OperationObserver = Callable[[Any, tuple, Any], None]
"""Is shown an executed operation: its overload, what it was given, what it gave."""

MOST_RESULTS = 100_000
"""Shapes that are remembered; a recipe of the 14B takes some 2000."""

_RESULTS: dict[tuple, tuple[_Made, ...] | None] = {}
"""What operations gave for arguments of the same shapes, in any simulation of this process and of those it forks."""


class QuickFakeMode(PlainFakeMode):
    """FakeTensorMode with short ways; what comes out cannot be told from what it makes."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._attributes: dict[torch.device, dict[str, Any]] = {}
        self._observe: OperationObserver | None = None

    @contextmanager
    def observed(self, observe: OperationObserver) -> Iterator[None]:
        """Show every operation inside, but for those that make it up, to `observe`.

        A mode of its own could do that as well, and would take as long once more for each operation.
        """
        before = self._observe
        self._observe = observe if before is None else _each(before, observe)
        try:
            yield
        finally:
            self._observe = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is WHERE and type(args[0]) is FakeTensor and not self.in_kernel_invocation:
            return args[0].fake_device
        if self._observe is None:
            return self._answer(func, types, args, kwargs or {})
        if DTensor in types:
            return NotImplemented  # let it desugar into operations on the local shard, seen one by one
        if is_meta(args, kwargs):
            with without_dispatch():  # no memory to count, and fake tensors would only be slower
                return func(*args, **(kwargs or {}))
        observe, self._observe = self._observe, None  # what it is made up of is not shown
        try:
            out = self._answer(func, types, args, kwargs or {})
        finally:
            self._observe = observe
        observe(func, args, out)
        return out

    def _answer(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func in _VIEWS and _is_plain(args[0]):
            return self._view(func, args, kwargs)
        if func is aten.copy_.default and _is_plain(args[0]) and _is_plain(args[1]) and args[0].shape == args[1].shape:
            return args[0]
        if func in _COPIES:
            return None
        if func is aten.empty.memory_format and (device := _plain_device(kwargs)) is not None:
            return self._empty(args, kwargs, device)
        return self._computed(func, types, args, kwargs)

    def _view(self, func: Any, args: Any, kwargs: Any) -> FakeTensor | list[FakeTensor]:
        device, made = args[0].fake_device, in_meta_kernel(self, func, args, kwargs)
        return self._fake(made, device) if isinstance(made, Tensor) else [self._fake(each, device) for each in made]

    def _empty(self, args: Any, kwargs: Any, device: torch.device) -> FakeTensor:
        made = in_meta_kernel(self, aten.empty.memory_format, args, kwargs | {"device": "meta"})
        return self._fake(made, device)

    def _computed(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        try:
            key = (func, _key(args), _key(kwargs)) if _gives_new(func) else None
        except _Strange:
            key = None
        if (known := _RESULTS.get(key) if key else None) is not None:
            made = tuple(map(self._make, known))
            return made[0] if len(made) == 1 else made
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if key is not None and len(_RESULTS) < MOST_RESULTS:
            _RESULTS[key] = _description(out, set(_storages((*args, *kwargs.values()))))
        return out

    def _make(self, made: _Made) -> FakeTensor:
        sizes = {"dtype": made.dtype, "device": "meta"}
        return self._fake(
            in_meta_kernel(self, aten.empty_strided.default, (made.shape, made.stride), sizes), made.device
        )

    def empty_storage(self, nbytes: int, dtype: torch.dtype, device: torch.device, geometry: tuple) -> FakeTensor:
        """A new fake tensor of some geometry (shape, strides, offset) in a storage of `nbytes`."""
        with without_dispatch():
            flat = torch.empty(nbytes // dtype.itemsize, dtype=dtype, device="meta")
            return self._fake(flat.as_strided(*geometry), device)

    def _fake(self, elem: Tensor, device: torch.device) -> FakeTensor:
        """What FakeTensor(self, elem, device) is, its attributes copied from the first one made so."""
        if device not in self._attributes:
            self._attributes[device] = dict(vars(FakeTensor(self, elem, device)))
        return fake_from_meta(elem, device, self._attributes[device])


def empty_storage(nbytes: int, dtype: torch.dtype, device: torch.device, *geometry: Any) -> Tensor:
    """A new fake tensor of some shape, strides and offset in a storage of `nbytes`, shown to no observer."""
    mode = active_fake_mode()
    assert mode is not None  # simulations alone make tensors so
    return mode.empty_storage(nbytes, dtype, device, geometry)


def active_fake_mode() -> QuickFakeMode | None:
    """The mode that makes tensors at this moment, if they are fake."""
    mode = innermost_fake_mode()
    return mode if isinstance(mode, QuickFakeMode) else None


def is_meta(args: tuple, kwargs: dict[str, Any] | None) -> bool:
    """Whether an operation makes a plain meta tensor, or works on nothing else."""
    if args and type(args[0]) is FakeTensor:
        return False
    device = kwargs.get("device") if kwargs else None
    if device is not None and torch.device(device).type != "meta":
        return False
    tensors = [value for value in args if isinstance(value, Tensor)]
    return (bool(tensors) or device is not None) and all(
        type(tensor) in (Tensor, nn.Parameter) and tensor.is_meta for tensor in tensors
    )


def _each(*observers: OperationObserver) -> OperationObserver:
    def observe(func: Any, args: tuple, out: Any) -> None:
        for each in observers:
            each(func, args, out)

    return observe


def _is_plain(value: Any) -> bool:
    """A fake tensor without known values, which operations would have to follow."""
    return type(value) is FakeTensor and value.constant is None and not value.requires_grad


def _plain_device(kwargs: dict[str, Any]) -> torch.device | None:
    """Where an empty tensor is asked for; None where it is not plain memory of a device that a run works on."""
    device = torch.device(kwargs.get("device") or _HERE)
    return device if device in _DEVICES and not kwargs.get("pin_memory") else None


@cache
def _gives_new(func: Any) -> bool:
    """Whether an operation writes to nothing that it is given, and gives tensors of its own."""
    schema = schema_of(func)
    return func.namespace == "aten" and not any(item.alias_info for item in (*schema.arguments, *schema.returns))


def _key(value: Any) -> Any:
    """What the shape of a result depends on. Raises _Strange."""
    if isinstance(value, FakeTensor) and _is_plain(value):
        return value.shape, value.stride(), value.dtype, value.storage_offset(), value.fake_device
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return tuple((name, _key(part)) for name, part in value.items())
    if value is None or isinstance(
        value, bool | int | float | str | torch.dtype | torch.device | torch.memory_format | torch.layout
    ):
        return type(value), value
    raise _Strange


def _description(out: Any, given: set[int]) -> tuple[_Made, ...] | None:
    """How to make `out` again; None: only FakeTensorMode knows. `given`: storages of the arguments."""
    tensors = out if isinstance(out, tuple) and len(out) > 1 else (out,)
    if not all(_is_plain(tensor) and _fills_storage(tensor) for tensor in tensors):
        return None
    if given.intersection(_storages(tensors)):  # some operations give views and do not say so
        return None
    return tuple(_Made(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.fake_device) for tensor in tensors)


def _storages(value: Any) -> Iterator[int]:
    if isinstance(value, Tensor):
        yield storage_key(value.untyped_storage())
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _storages(part)


def _fills_storage(tensor: Tensor) -> bool:
    """Whether the storage is as large as shape and strides ask for."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    items = reach if tensor.numel() else 0
    return tensor.storage_offset() == 0 and tensor.untyped_storage().nbytes() == items * tensor.element_size()
