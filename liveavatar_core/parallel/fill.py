"""Read weights into place: every rank its own shard, straight from the source, nothing gathered."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor

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
            source.copy_to(prefix + name, 0, weight)


def plain_name(name: str) -> str:
    """The name of a weight as it is without flat sharding around it."""
    return name.replace(f"{WRAPPER}.", "")


def _fill_rounded(unit: nn.Module, names: Sequence[str], source: WeightSource, prefix: str) -> set[str]:
    """Fill what is kept in 8 bits, rounded where it stands; returns the names that this took care of."""
    done: set[str] = set()
    for path, layer in unit.named_modules():
        if isinstance(layer, QuantizedLinear) and f"{path}.weight" in names:
            name = f"{prefix}{path}.weight"
            whole = torch.empty(source.shape(name), dtype=source.dtype(name), device=layer.weight.device)
            source.copy_to(name, 0, whole)
            layer.load_(whole)
            done |= {f"{path}.weight", f"{path}.scale"}
    return done


def _fill_rows(parameter: DTensor, source: WeightSource, name: str) -> None:
    """A shard of `fully_shard`: whole rows of the first dimension, the first ranks taking one share each."""
    local, mesh = parameter.to_local(), parameter.device_mesh
    share = -(-parameter.shape[0] // mesh.size())
    first = share * mesh.get_local_rank()
    if local.numel():
        source.copy_to(name, first * math.prod(parameter.shape[1:]), local)


def _fill_piece(parameter: nn.Parameter, source: WeightSource, name: str, piece: FlatWeight) -> None:
    """A shard of a flat parameter: from the first to the last element of this weight, so parts of rows at both ends.

    Of a weight of which this rank holds nothing the parameter is empty; there is nothing to read.
    """
    if piece.last >= piece.first:
        source.copy_to(name, piece.first, parameter)
