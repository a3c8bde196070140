"""Seeded random weights: the same value for the same name, seed and place, whatever shard is asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor, nn

from liveavatar_core.weights.source import WeightSource

_TABLE_SIZE = 1_048_573
"""A prime just below 2**20, so that rows of the usual widths never repeat in step with the table."""
_BIAS_DEVIATION = 0.02
_ONES = ("gamma", "weight_g", "weight.original0")
"""Ends of names of gains, which are not vectors."""


class SeededSource(WeightSource):
    """Weights that keep a network's values finite: normal over sqrt(fan-in), gains 1, biases small.

    Values are windows of one table of normal numbers, from a place of the name's own: any slice costs no
    more than copying it, where drawing 16 billion numbers would take minutes.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        """`shapes`: every weight. `dtype`: the type that values are handed over in."""
        self._shapes = dict(shapes)
        self._seed = seed
        self._dtype = dtype

    @classmethod
    def for_module(cls, module: nn.Module, seed: int = 0, dtype: torch.dtype = torch.float32) -> Self:
        """For every parameter of a module, which may stand on the meta device."""
        return cls({name: tuple(weight.shape) for name, weight in module.named_parameters()}, seed, dtype)

    def names(self) -> Collection[str]:
        """Every weight that there is."""
        return self._shapes.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight."""
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        """The type that values are handed over in."""
        return self._dtype

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """The values of a weight on the CPU, or those of `rows` of the first dimension."""
        shape = self._shapes[name]
        start, stop, _ = (rows or slice(None)).indices(shape[0])
        wanted = (max(stop - start, 0), *shape[1:])
        if _is_gain(name, shape):
            return torch.ones(wanted, dtype=self._dtype)
        width = math.prod(shape[1:])
        first = _place_of(name, self._seed) + start * width
        return self._window(first, math.prod(wanted), _deviation(shape)).view(wanted)

    def _window(self, first: int, count: int, deviation: float) -> Tensor:
        """`count` values of the endless table from `first` on, scaled."""
        table, place = _table(self._seed), first % _TABLE_SIZE
        period = (torch.cat([table[place:], table[:place]])[:count] * deviation).to(self._dtype)
        repeats, rest = divmod(count, _TABLE_SIZE)
        if not repeats:
            return period
        values = torch.empty(count, dtype=self._dtype)
        values[: count - rest].view(repeats, _TABLE_SIZE).copy_(period)
        values[count - rest :] = period[:rest]
        return values


@lru_cache(maxsize=2)  # a table is megabytes, and a process makes weights of one seed
def _table(seed: int) -> Tensor:
    return torch.randn(_TABLE_SIZE, generator=torch.Generator().manual_seed(seed))


def _place_of(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _TABLE_SIZE


def _is_gain(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith(_ONES) or (len(shape) == 1 and name.endswith("weight"))


def _deviation(shape: tuple[int, ...]) -> float:
    return _BIAS_DEVIATION if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
