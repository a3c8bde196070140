"""Read weights into place: every rank its own shard, row by row from the source, nothing gathered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor

from liveavatar_core import scopes
from liveavatar_core.parallel.quantize import QuantizedLinear
from liveavatar_core.weights.source import WeightSource

_WRAPPER = "_fsdp_wrapped_module."


@torch.no_grad()
def fill(unit: nn.Module, names: Sequence[str], source: WeightSource, prefix: str = "") -> None:
    """Copy what this rank holds of the weights `names` of `unit`; `source` has them behind `prefix`."""
    flat, rounded = _flat_pieces(unit), _fill_rounded(unit, names, source, prefix)
    weights = {plain_name(name): weight for name, weight in unit.named_parameters()}
    for name in (name for name in names if name not in rounded):
        weight = weights[name]
        if name in flat:
            _fill_piece(weight, source, prefix + name, *flat[name])
        elif isinstance(weight, DTensor):
            _fill_rows(weight, source, prefix + name)
        else:
            weight.copy_(_read(source, prefix + name, None))


def plain_name(name: str) -> str:
    """The name of a weight as it is without flat sharding around it."""
    return name.replace(_WRAPPER, "")


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


def _fill_piece(
    parameter: nn.Parameter, source: WeightSource, name: str, shape: tuple[int, ...], first: int, last: int
) -> None:
    """A shard of a flat parameter: elements first..last of this weight, so parts of rows at both ends."""
    if last < first:
        return
    width = math.prod(shape[1:])
    top, bottom = first // width, last // width + 1
    rows = _read(source, name, slice(top, bottom)).reshape(-1)
    parameter.view(-1).copy_(rows[first - top * width : last + 1 - top * width])


def _flat_pieces(unit: nn.Module) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Of every weight in the unit's own flat parameter: its shape, and the first and last element that this rank holds.

    Weights of which this rank holds nothing are listed with an empty parameter; there is nothing to read for them.
    """
    handle = unit._handle if isinstance(unit, FullyShardedDataParallel) else None
    pieces = {}
    for name, shape, shard in _weights_of(handle.flat_param) if handle is not None else ():
        first, last = (shard.intra_param_start_idx, shard.intra_param_end_idx) if shard.in_shard else (0, -1)
        pieces[plain_name(name)] = (tuple(shape), first, last)
    return pieces


def _weights_of(flat_param: Tensor) -> Iterator[tuple]:
    infos, shapes, shards = flat_param._param_infos, flat_param._shapes, flat_param._shard_param_infos  # type: ignore[attr-defined]
    for info, shape, shard in zip(infos, shapes, shards, strict=True):
        yield ".".join(filter(None, (info.module_name, info.param_name))), shape, shard
