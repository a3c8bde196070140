"""Counts the work of the operations that a rank executes: FLOPs, bytes moved, bytes sent. `roofline` prices it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp  # registers its operations
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from liveavatar_core import scopes
from liveavatar_core.simulation.cost.roofline import Operation
from liveavatar_core.torch_private import (
    ATTENTION,
    all_gather_base,
    foreach_copy,
    reduce_scatter_base,
    schema_of,
    to_copy,
)

aten, c10d = torch.ops.aten, torch.ops.c10d

_LOOKUPS = {aten.embedding, aten.index_select, aten.gather, aten.index}
_COPIES = {aten.clone, aten.copy_, to_copy}
_OVERWRITES = {aten.copy_, aten.fill_, aten.zero_}
"""What they write into is their first argument, and is not read."""
_COPY_IN, _COPY_OUT = torch.ops.fsdp.all_gather_copy_in, torch.ops.fsdp.split_with_sizes_copy
_SHARD_COPIES = {foreach_copy, _COPY_IN, _COPY_OUT}
"""Around the gathers of `fully_shard`: shards as they are gathered, into their place, and out of there."""
_GATHERS = {all_gather_base, c10d.allgather_}
_NO_WORK = {aten.empty, aten.new_empty, aten.empty_like, aten.empty_strided, aten.detach, aten.lift_fresh}


class WorkCounter:
    """Adds up the work of each phase, by kind of operation."""

    def __init__(self, place_of: Callable[[torch.Tensor], str], rank: int = 0) -> None:
        """`place_of` tells in which memory a tensor stands, so that copies between card and host are seen.

        `rank`: of which the work is counted; groups begin with rank 0 and leave none out.
        """
        self._rank = rank
        self.place_of = place_of
        self.operations: Counter[Operation] = Counter()
        self._views: dict[Any, bool] = {}
        self._names: dict[Any, str] = {}

    def count(self, func: Any, args: tuple, out: Any) -> None:
        """Add one executed operation: its overload, what it was given, what it gave."""
        packet = func.overloadpacket
        if func.namespace == "c10d":
            self._add(packet, _kind_of_collective(packet), "", 0, _sent(packet, args, self._rank))
        elif packet not in _NO_WORK and not self._is_view(func):
            self._count_kernel(packet, args, out)

    def _count_kernel(self, packet: Any, args: tuple, out: Any) -> None:
        given, made = list(_tensors(args)), list(_tensors((out,)))
        if packet in _SHARD_COPIES:
            made = given[:1]
        if not made:
            return
        moved = _moved(packet, args, given, made)
        if packet in _COPIES and self._crosses(given, made):
            self._add(packet, "host", "", 0, _nbytes(made[0]))
            return
        flops = _flops(packet, args, out) if packet in flop_registry or packet in ATTENTION else 0
        multiplied = given[min(1, len(given) - 1)] if given else made[0]  # scales and biases come behind it
        dtype = str(multiplied.dtype).removeprefix("torch.")
        self._add(packet, "card" if self.place_of(made[0]) == "card" else "cpu", dtype, flops, moved)

    def _add(self, packet: Any, kind: str, dtype: str, flops: int, nbytes: int) -> None:
        name = self._names.get(packet)
        if name is None:
            name = self._names[packet] = str(packet)
        self.operations[Operation(scopes.current().phase, kind, dtype, flops, nbytes, name)] += 1

    def _crosses(self, given: list[torch.Tensor], made: list[torch.Tensor]) -> bool:
        return len({self.place_of(tensor) for tensor in (*given, *made)}) > 1

    def _is_view(self, func: Any) -> bool:
        known = self._views.get(func)
        if known is None:
            returns = schema_of(func).returns
            known = bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
            self._views[func] = known
        return known


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _moved(packet: Any, args: tuple, given: list[torch.Tensor], made: list[torch.Tensor]) -> int:
    """Bytes that a kernel reads and writes."""
    if packet is foreach_copy:  # shards in the storage type, and in the one that is gathered
        return sum(map(_nbytes, given))
    if packet in _SHARD_COPIES:  # read and written in one type: all shards of a unit, all that was gathered
        return 2 * sum(map(_nbytes, _tensors(args[:1])))
    read = [] if packet in _LOOKUPS else given[1:] if packet in _OVERWRITES else given
    return sum(map(_nbytes, made)) + sum(map(_nbytes, read))


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _flops(packet: Any, args: tuple, out: Any) -> int:
    if packet in ATTENTION:
        query, key, value = (tuple(tensor.shape) for tensor in args[:3])
        return sdpa_flop_count(query, key, value)
    return flop_registry[packet](*args, out_val=out)


def _kind_of_collective(packet: Any) -> str:
    """FSDP gathers weights on a stream of its own, ahead of the unit that waits for them; all else waits at once."""
    gathers_weights = packet in _GATHERS and scopes.current().category == "unsharded_parameters"
    return "gather" if gathers_weights else "link"


def _sent(packet: Any, args: tuple, rank: int) -> int:
    """Bytes that pass this rank's link in the direction that is busier, as NCCL's rings and pairs would send them.

    Over R ranks: all-gather (R - 1)/R of the output, reduce-scatter (R - 1)/R of the input, all-reduce twice that and
    counted as twice the whole; all-to-all what is not this rank's own; broadcast, send and receive what is given.
    """
    sizes = [_nbytes(tensor) for tensor in _tensors(args)]
    if not sizes:
        return 0
    if packet is c10d.alltoall_base_:
        out, given, _, out_splits, in_splits = args[:5]
        return max(_not_own(out, out_splits, rank), _not_own(given, in_splits, rank))
    if packet in (all_gather_base, reduce_scatter_base):
        return max(sizes) - min(sizes)
    if packet is c10d.allgather_:
        return sum(sizes[:-1]) - sizes[-1]
    return 2 * sizes[0] if packet is c10d.allreduce_ else sizes[0]


def _not_own(tensor: torch.Tensor, splits: list[int], rank: int) -> int:
    """Bytes of `tensor` that belong to other ranks; without splits it is parted evenly."""
    if not splits:
        return _nbytes(tensor) - _nbytes(tensor) // dist.get_world_size()
    return _nbytes(tensor) * (sum(splits) - splits[rank]) // max(sum(splits), 1)
