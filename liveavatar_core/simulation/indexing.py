"""`tensor[index]` taken apart into operations as torch does it, without making the driver choose the tensor's card."""

from __future__ import annotations

from types import EllipsisType

import torch
from torch import Tensor

aten = torch.ops.aten

Index = int | slice | None | EllipsisType | Tensor | list


def get_item(tensor: Tensor, index: Index | tuple[Index, ...]) -> Tensor:
    """What stands for `Tensor.__getitem__`: a view, or a new tensor where tensors choose."""
    view, chosen = _narrowed(tensor, index)
    if chosen:
        return aten.index(view, chosen)
    return aten.alias(view) if view is tensor else view


def set_item(tensor: Tensor, index: Index | tuple[Index, ...], value: Tensor | float) -> None:
    """What stands for `Tensor.__setitem__`."""
    view, chosen = _narrowed(tensor, index)
    if not isinstance(value, Tensor):
        value = aten.scalar_tensor(value, dtype=tensor.dtype, device=tensor.device)
    if chosen:
        aten.index_put_(view, chosen, value)
    else:
        aten.copy_(view, value)


def _narrowed(tensor: Tensor, index: Index | tuple[Index, ...]) -> tuple[Tensor, list[Tensor | None]]:
    """The view that numbers and slices leave, and the tensors that choose along its axes, None where none does."""
    items = index if isinstance(index, tuple) else (index,)
    axes = sum(_axes(item) for item in items)
    view, chosen = tensor, list[Tensor | None]()
    for item in items:
        axis = len(chosen)
        if item is None:
            view, chosen = aten.unsqueeze(view, axis), [*chosen, None]
        elif item is ...:
            chosen += [None] * (tensor.ndim - axes)
        elif isinstance(item, slice):
            view, chosen = _cut(view, axis, item), [*chosen, None]
        elif isinstance(item, Tensor | list):
            chosen.append(torch.as_tensor(item, device=tensor.device))
        else:
            view = aten.select(view, axis, item)
    while chosen and chosen[-1] is None:
        chosen.pop()
    return view, chosen


def _axes(item: Index) -> int:
    """How many axes of the tensor an item takes."""
    if item is None or item is ...:
        return 0
    return item.ndim if isinstance(item, Tensor) and item.dtype == torch.bool else 1


def _cut(tensor: Tensor, axis: int, item: slice) -> Tensor:
    first, last, step = item.indices(tensor.shape[axis])
    if (first, last, step) == (0, tensor.shape[axis], 1):
        return tensor
    return aten.slice(tensor, axis, first, max(first, last), step)
