"""Shard a part over ranks with torch's FSDP, in either of its two kinds, and fill each rank's own shard."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import Token
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FullyShardedDataParallel,
    MixedPrecisionPolicy,
    OffloadPolicy,
    ShardingStrategy,
    fully_shard,
)

from liveavatar_core import scopes
from liveavatar_core.parallel import hooks
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.torch_private import wrapped_module


class GatherScope:
    """Tells scopes and instruments that what happens between two hooks is a gather of weights."""

    def __init__(self) -> None:
        self._begun: list[tuple[Token[scopes.Scope], AbstractContextManager[None]]] = []

    def begin(self, *_: Any) -> None:
        """Hook: the gather begins."""
        gather = hooks.gather()
        self._begun.append((scopes.enter(category="unsharded_parameters"), gather))
        gather.__enter__()

    def end(self, *_: Any) -> None:
        """Hook: the gather is done, the unit's own work begins."""
        token, gather = self._begun.pop()
        gather.__exit__(None, None, None)
        scopes.leave(token)


def shard_per_parameter(
    unit: nn.Module,
    mesh: DeviceMesh,
    *,
    compute_dtype: torch.dtype,
    reshard: bool = True,
    offload: Memory | None = None,
) -> None:
    """Apply `fully_shard` to what of `unit` is in no unit yet, in place. It is on meta.

    reshard: give up what was gathered after each forward. offload: keep shards in the host memory of this.
    """
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, cast_forward_inputs=False)
    resting = OffloadPolicy() if offload is None else CPUOffloadPolicy(pin_memory=offload.card.type == "cuda")
    fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard, offload_policy=resting)
    scope = GatherScope()
    unit.register_forward_pre_hook(scope.begin, prepend=True)
    unit.register_forward_pre_hook(scope.end)
    if offload is not None:
        hooks.current().shards_rest(unit, offload)


def shard_flat(unit: nn.Module, mesh: DeviceMesh, *, device: torch.device, reshard: bool = True) -> nn.Module:
    """Wrap `unit` in flat-parameter FSDP; its weights that are in no unit yet become empty storage on `device`."""

    def materialise(owner: nn.Module) -> None:
        for name, parameter in owner.named_parameters(recurse=False):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            owner.register_parameter(name, nn.Parameter(empty, requires_grad=False))

    wrapped = FullyShardedDataParallel(
        unit,
        process_group=mesh.get_group(),
        sharding_strategy=ShardingStrategy.FULL_SHARD if reshard else ShardingStrategy.SHARD_GRAD_OP,
        device_id=device,
        param_init_fn=materialise,
        use_orig_params=True,
    )
    scope = GatherScope()
    wrapped.register_forward_pre_hook(scope.begin, prepend=True)
    wrapped_module(wrapped).register_forward_pre_hook(scope.end, prepend=True)
    return wrapped
