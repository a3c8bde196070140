"""Where weights come from: one interface for checkpoints, seeded random values and tensors at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.errors import CheckpointError


class WeightSource(Protocol):
    """Weights by name. Nothing is read before `read`, so a rank can take its own shard and no more."""

    def names(self) -> Collection[str]:
        """Every weight that there is."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight, without reading it."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """The type that it is stored in."""
        ...

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """The values of a weight on the CPU, or of `rows` of its first dimension; equal to that slice of the whole.

        Raises CheckpointError naming file and key where they cannot be read.
        """
        ...

    def copy_to(self, name: str, first: int, out: Tensor) -> None:
        """Copy the values from number `first` on into `out`, as many as it takes, of any type and on any device.

        Unless a source knows a shorter way, the rows that hold them are read into host memory first.
        """
        width = math.prod(self.shape(name)[1:])
        if not out.numel():
            return
        if not first and out.numel() == math.prod(self.shape(name)):
            rows = None
        else:
            rows = slice(first // width, -(-(first + out.numel()) // width))
        with scopes.place("host"):
            values = self.read(name, rows)
        skipped = first - rows.start * width if rows else 0
        out.view(-1).copy_(values.reshape(-1)[skipped : skipped + out.numel()])


class TensorSource(WeightSource):
    """Tensors at hand, as a WeightSource."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def names(self) -> Collection[str]:
        """Every weight that there is."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """The type that it is stored in."""
        return self._tensors[name].dtype

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """The values of a weight, or those of `rows` of the first dimension; shares memory with the tensor."""
        tensor = self._tensors[name]
        return tensor if rows is None else tensor[rows]


class RenamedSource(WeightSource):
    """Another source under other names; weights without a new name are left out."""

    def __init__(self, source: WeightSource, rename: Callable[[str], str | None]) -> None:
        """`rename` gives the new name of a name of `source`, or None."""
        self._source = source
        pairs = ((rename(name), name) for name in source.names())
        self._old_name = {new: old for new, old in pairs if new is not None}

    def names(self) -> Collection[str]:
        """Every weight that there is, under its new name."""
        return self._old_name.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight."""
        return self._source.shape(self._old_name[name])

    def dtype(self, name: str) -> torch.dtype:
        """The type that it is stored in."""
        return self._source.dtype(self._old_name[name])

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """The values of a weight, or those of `rows` of the first dimension."""
        return self._source.read(self._old_name[name], rows)

    def copy_to(self, name: str, first: int, out: Tensor) -> None:
        """Copy values by the other source's way."""
        self._source.copy_to(self._old_name[name], first, out)


def validate(source: WeightSource, expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Check that `source` has every expected weight in its shape, before any card memory is taken.

    `where` names the checkpoint in the message. Weights beyond the expected ones are an error too: they
    mean another model. Raises CheckpointError naming the first weights that differ.
    """
    have = set(source.names())
    missing, unexpected = sorted(expected.keys() - have), sorted(have - expected.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{where}: {len(missing)} of {len(expected)} weights missing{_some(missing)},"
            f" {len(unexpected)} unknown{_some(unexpected)}",
            "see what the checkpoint holds: python -m liveavatar_core inspect --ckpt_dir DIR",
        )
    for name, shape in expected.items():
        if tuple(source.shape(name)) != tuple(shape):
            raise CheckpointError(
                f"{where}: {name} is {list(source.shape(name))}; the model has {list(shape)}",
                "take the checkpoint of this model, or the recipe of that one",
            )


def _some(names: list[str], count: int = 3) -> str:
    """The first few names in brackets, for a message."""
    if not names:
        return ""
    more = ", ..." if len(names) > count else ""
    return f" ({', '.join(names[:count])}{more})"
