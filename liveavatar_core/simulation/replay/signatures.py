"""What two calls of equal units must have in common, so that they do the same to memory and ask for the same work."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from liveavatar_core import torch_private
from liveavatar_core.model.block import NoisyAttend, SinkAttend
from liveavatar_core.model.cache import Float8KVCache, KVCache
from liveavatar_core.model.state import BlockContext
from liveavatar_core.model.transformer import Denoise
from liveavatar_core.simulation.replay.effects import is_ours, parts_of

PLACES_ONLY: dict[type, frozenset[str]] = {
    NoisyAttend: frozenset({"layer", "row", "start"}),
    SinkAttend: frozenset({"row"}),
    BlockContext: frozenset({"frame"}),
    Denoise: frozenset({"step"}),
}
"""Numbers that choose where something is read or written, or values of tables; how much is left as it is."""


class UnitSignature:
    """Stands for the class and the weights of a unit: one object for all units that are alike, so quick to compare."""


class Signatures:
    """Makes hashable signatures of units and of what they are called with."""

    def __init__(self, place_of: Callable[[Tensor], str], number_of: Callable[[Tensor], int | None]) -> None:
        """`place_of` tells in which memory a tensor stands, `number_of` the number of its allocation."""
        self._place_of, self._number_of = place_of, number_of
        self._frozen: dict[int, tuple[weakref.ref, Any]] = {}
        self._owners: weakref.WeakKeyDictionary[nn.Module, list[tuple[dict[str, Any], str]]] = (
            weakref.WeakKeyDictionary()
        )
        self._sharded: weakref.WeakKeyDictionary[nn.Module, list[weakref.ref[FSDPModule]]] = weakref.WeakKeyDictionary()
        self._units: weakref.WeakKeyDictionary[nn.Module, tuple[tuple, UnitSignature]] = weakref.WeakKeyDictionary()
        self._known: dict[tuple, UnitSignature] = {}

    def of_unit(self, unit: nn.Module) -> UnitSignature:
        """Class and weights of a unit: shapes, types, where they stand, whether they are gathered now.

        Worked out anew where weights lie in other allocations than at the last call.
        """
        weights = list(self._weights(unit))
        gathered = tuple(torch_private.sharded_state(module) for module in self.sharded_modules(unit))
        state = gathered, tuple(map(self._number_of, weights))
        known = self._units.get(unit)
        if known is None or known[0] != state:
            parts = type(unit), gathered, tuple(map(self.of_tensor, weights))
            known = self._units[unit] = state, self._known.setdefault(parts, UnitSignature())
        return known[1]

    def sharded_modules(self, unit: nn.Module) -> Iterator[FSDPModule]:
        """What `fully_shard` made units of. Found once, held weakly: what is given up must die."""
        known = self._sharded.get(unit)
        if known is None:
            modules = (module for module in unit.modules() if isinstance(module, FSDPModule))
            known = self._sharded[unit] = [weakref.ref(module) for module in modules]
        return (module for module in (reference() for reference in known) if module is not None)

    def _weights(self, unit: nn.Module) -> Iterator[Tensor]:
        owners = self._owners.get(unit)
        if owners is None:
            tables = [table for module in unit.modules() for table in torch_private.weight_tables(module)]
            owners = self._owners[unit] = [(table, name) for table in tables for name in table]
        for table, name in owners:
            weight = table.get(name)
            if weight is not None:
                yield torch_private.local_shard(weight) if isinstance(weight, DTensor) else weight

    def of_tensor(self, tensor: Tensor) -> tuple:
        """Geometry, type, size of its storage and where it stands; not its values."""
        return (
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
            tensor.untyped_storage().nbytes(),
            self._place_of(tensor),
        )

    def of_value(self, value: Any) -> Any:
        """Everything in an argument that decides how much memory and work a call takes."""
        if isinstance(value, Tensor):
            return self.of_tensor(value)
        if isinstance(value, int | float | str | None | torch.dtype | torch.device):
            return value
        if _is_frozen(value):
            return self._of_frozen(value)
        if isinstance(value, list | tuple | dict) or is_ours(value):
            return self._of_parts(value)
        return type(value), id(value)

    def _of_frozen(self, value: Any) -> Any:
        known = self._frozen.get(id(value))
        if known is not None and known[0]() is value:
            return known[1]
        signature = self._of_parts(value)
        if all(_is_settled(part) for _, _, part in parts_of(value)):
            self._frozen[id(value)] = (weakref.ref(value), signature)
        return signature

    def _of_parts(self, value: Any) -> tuple:
        left_out = PLACES_ONLY.get(type(value), frozenset())
        parts = tuple((name, self.of_value(part)) for _, name, part in parts_of(value) if name not in left_out)
        return type(value), parts, _extent(value)


def _is_settled(part: Any) -> bool:
    """Whether a part of a frozen dataclass can no longer change itself."""
    if isinstance(part, tuple):
        return all(_is_settled(item) for item in part)
    if isinstance(part, Tensor | int | float | str | None):
        return True
    return _is_frozen(part) and all(_is_settled(item) for _, _, item in parts_of(part))


def _is_frozen(value: Any) -> bool:
    return is_dataclass(value) and getattr(value, "__dataclass_params__").frozen  # noqa: B009


def _extent(value: Any) -> int | None:
    """For a request to denoise: how many tokens of its cache it sees; its frame number says no more than that."""
    if not isinstance(value, Denoise):
        return None
    if not isinstance(value.cache, KVCache | Float8KVCache):
        return value.block.frame
    seen = (value.block.frame + value.latents_BCFHW.shape[2]) * value.state.frame_tokens
    return min(seen, value.cache.tokens)
