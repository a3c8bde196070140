"""Shard a part over ranks with torch's FSDP, in either of its two kinds, and fill each rank's own shard."""

from __future__ import annotations

from contextvars import Token
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    FullyShardedDataParallel,
    MixedPrecisionPolicy,
    OffloadPolicy,
    ShardingStrategy,
    fully_shard,
)

from liveavatar_core import scopes
from liveavatar_core.parallel.devices import Memory


class GatherScope:
    """Tells the scopes that what is born between two hooks is gathered weights."""

    def __init__(self) -> None:
        self._tokens: list[Token[scopes.Scope]] = []

    def begin(self, *_: Any) -> None:
        """Hook: the gather begins."""
        self._tokens.append(scopes.enter(category="unsharded_parameters"))

    def end(self, *_: Any) -> None:
        """Hook: the gather is done, the unit's own work begins."""
        scopes.leave(self._tokens.pop())


class ShardVisit:
    """Where one device plays card and host: copies a unit's shards while they are gathered, as FSDP does between two.

    FSDP's own copy is left out where nothing has to move, and a tracker would not see what a card has to hold.
    """

    def __init__(self, unit: nn.Module, memory: Memory) -> None:
        self._unit, self._memory = unit, memory
        self._resting: list[tuple[Any, torch.Tensor]] = []

    def begin(self, *_: Any) -> None:
        """Hook: the gather begins."""
        group = self._unit._get_fsdp_state()._fsdp_param_group  # type: ignore[operator]
        self._resting = [(parameter, parameter._sharded_param_data) for parameter in group.fsdp_params]
        with scopes.category("unsharded_parameters"):
            for parameter, data in self._resting:
                parameter._sharded_param_data = self._memory.move(data, "card")

    def end(self, *_: Any) -> None:
        """Hook: the gather is done."""
        for parameter, data in self._resting:
            parameter._sharded_param_data = data


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
    if offload is not None and offload.card == offload.host:
        visit = ShardVisit(unit, offload)
        unit.register_forward_pre_hook(visit.begin, prepend=True)
        unit.register_forward_pre_hook(visit.end)
    unit.register_forward_pre_hook(scope.end)


def adopt_shards(unit: nn.Module) -> None:
    """Let `fully_shard` take up the shards that were put in place, now: the last ranks' are padded to a full share.

    Its first forward would do it otherwise, and the copies would seem to be gathered weights.
    """
    group = unit._get_fsdp_state()._fsdp_param_group if isinstance(unit, FSDPModule) else None
    if group is not None:
        for parameter in group.fsdp_params:
            parameter.reset_sharded_param()
            parameter._init_extensions()
        group._reset_sharded_params = True


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
    wrapped._fsdp_wrapped_module.register_forward_pre_hook(scope.end, prepend=True)
    return wrapped
