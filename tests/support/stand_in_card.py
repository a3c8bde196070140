"""A card without a card: tensors that say `cuda` and lie in host memory, where code cannot mix the two up.

What fails on a card fails here as well: an operation over tensors of both, and gloo's send and receive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CARD = torch.device("cuda", 0)
IN_PLACE = (Tensor.copy_,)
TRANSFERS = (*IN_PLACE, Tensor.to, Tensor.cpu)


class CardTensor(Tensor):
    """A tensor on the stand-in card."""

    device = CARD  # type: ignore[assignment]
    is_cuda = True  # type: ignore[assignment]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {}, None)


class StandInCard(TorchFunctionMode):
    """While it is entered, `device="cuda"` makes CardTensors."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned: list[Tensor] = []
        """Host tensors that were asked for in pinned memory."""
        self.waited_for: list[str] = []
        """Transfers that the host waits for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {}, self)


def _call(func: Any, args: Any, kwargs: dict[str, Any], card: StandInCard | None) -> Any:
    if func is torch.device:
        return func(*args, **kwargs)
    if func is Tensor.pin_memory and card is not None:  # no driver is there to do it
        card.pinned.append(args[0])
        return args[0]
    tensors = [*_tensors(args), *_tensors(kwargs.values())]
    on_card = [isinstance(each, CardTensor) for each in tensors]
    if any(on_card) and not all(on_card) and func not in TRANSFERS:
        raise RuntimeError(f"{func.__name__}: expected all tensors on one device, found cuda:0 and cpu")
    goes, kwargs, args = _destination(func, args, kwargs, any(on_card))
    pin = kwargs.pop("pin_memory", False)
    made = _plainly(func, *args, **kwargs)
    if card is not None and pin:
        card.pinned.append(made)
    if card is not None and func in TRANSFERS and (not all(on_card) or not goes) and not kwargs.get("non_blocking"):
        card.waited_for.append(func.__name__)
    kind = CardTensor if goes else Tensor
    if not isinstance(made, Tensor) or type(made) is kind or func in IN_PLACE:
        return made
    return _plainly(Tensor.as_subclass, _plainly(Tensor.clone, made) if any(on_card) != goes else made, kind)


def _plainly(func: Any, *args: Any, **kwargs: Any) -> Any:
    """The call as if no class overrode it."""
    return nn.Parameter.__torch_function__(func, (), args, kwargs)


def _destination(func: Any, args: Any, kwargs: dict[str, Any], stays: bool) -> tuple[bool, dict[str, Any], Any]:
    """Whether the result is on the card, and the arguments without a word of it."""
    named = [each for each in (*args, kwargs.get("device")) if isinstance(each, torch.device)]
    host = torch.device("cpu")
    if func is Tensor.cpu:
        return False, kwargs, args
    if func is Tensor.copy_:
        return isinstance(args[0], CardTensor), kwargs, args
    if not named:
        return stays, kwargs, args
    args = tuple(host if isinstance(each, torch.device) else each for each in args)
    return named[0].type == "cuda", kwargs | ({"device": host} if "device" in kwargs else {}), args


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


@contextmanager
def gloo_that_refuses_cards() -> Iterator[None]:
    """As ProcessGroupGloo: broadcasts take card tensors, sends and receives read what they are given as host memory."""
    before = dist.send, dist.recv

    def refusing(exchange: Callable[..., Any]) -> Callable[..., Any]:
        def checked(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if tensor.device.type != "cpu":
                raise RuntimeError(f"gloo: {exchange.__name__} of a tensor on {tensor.device}")
            return exchange(tensor, *args, **kwargs)

        return checked

    dist.send, dist.recv = (refusing(each) for each in before)
    try:
        yield
    finally:
        dist.send, dist.recv = before
