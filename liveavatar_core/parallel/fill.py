"""Read weights into place: every rank its own shard, row by row from the source, nothing gathered."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from liveavatar_core import scopes
from liveavatar_core.parallel.quantize import QuantizedLinear
from liveavatar_core.torch_private import WRAPPER, FlatWeight, flat_weights
from liveavatar_core.weights.source import WeightSource


@torch.no_grad()
def fill(unit: nn.Module, names: Sequence[str], source: WeightSource, prefix: str = "") -> None:
    """Copy what this rank holds of the weights `names` of `unit`; `source` has them behind `prefix`."""
    rounded = _fill_rounded(unit, names, source, prefix)
    flat = {plain_name(each.name): each for each in flat_weights(unit)}
    weights = {plain_name(name): weight for name, weight in unit.named_parameters()}
    for name in (name for name in names if name not in rounded):
        weight = weights[name]
        if name in flat:
            _fill_piece(weight, source, prefix + name, flat[name])
        elif isinstance(weight, DTensor):
            _fill_rows(weight, source, prefix + name)
        else:
            weight.copy_(_read(source, prefix + name, None))


def plain_name(name: str) -> str:
    """The name of a weight as it is without flat sharding around it."""
    return name.replace(f"{WRAPPER}.", "")


def _read(source: WeightSource, name: str, rows: slice | None) -> Tensor:
    with scopes.place("host"):
        return source.read(name, rows)


def _fill_rounded(unit: nn.Module, names: Sequence[str], source: WeightSource, prefix: str) -> set[str]:
    """Fill what is kept in 8 bits, rounded in host memory; returns the names that this took care of."""
    done: set[str] = set()
    for path, layer in unit.named_modules():
        if isinstance(layer, QuantizedLinear) and f"{path}.weight" in names:
            with scopes.place("host"):
                layer.load_(source.read(f"{prefix}{path}.weight"))
            done |= {f"{path}.weight", f"{path}.scale"}
    return done


def _fill_rows(parameter: DTensor, source: WeightSource, name: str) -> None:
    """A shard of `fully_shard`: whole rows of the first dimension, the first ranks taking one share each."""
    local, mesh = parameter.to_local(), parameter.device_mesh
    share = -(-parameter.shape[0] // mesh.size())
    first = share * mesh.get_local_rank()
    if local.numel():
        local.copy_(_read(source, name, slice(first, first + local.shape[0])))


def _fill_piece(parameter: nn.Parameter, source: WeightSource, name: str, piece: FlatWeight) -> None:
    """A shard of a flat parameter: from the first to the last element of this weight, so parts of rows at both ends.

    Of a weight of which this rank holds nothing the parameter is empty; there is nothing to read.
    """
    if piece.last < piece.first:
        return
    width = math.prod(piece.shape[1:])
    top, bottom = piece.first // width, piece.last // width + 1
    rows = _read(source, name, slice(top, bottom)).reshape(-1)
    parameter.view(-1).copy_(rows[piece.first - top * width : piece.last + 1 - top * width])
