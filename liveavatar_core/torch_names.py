"""Which names of torch that its authors do not promise to keep this project takes, and whether they are there.

What a run needs is looked for when `torch_private` is imported, what simulations need beyond it when their memory
tracker is: machines with cards often have an older torch, and do not simulate.
"""

from __future__ import annotations

import dis
import importlib
from collections.abc import Sequence
from inspect import isfunction
from typing import Any

import torch

from liveavatar_core.errors import LiveAvatarError

TESTED_VERSIONS = ">=2.13,<2.14"
"""Versions of torch that the tests have passed on, as in pyproject.toml; see `make compat`."""

_FSDP = "torch.distributed.fsdp._fully_shard"
_FLAT = "torch.distributed.fsdp._flat_param.FlatParameter"
_ATEN = "torch.ops.aten"

RUN_NAMES = (
    "torch._scaled_mm",
    "torch.UntypedStorage._checkpoint_offset",
    "torch.cuda.memory._dump_snapshot",
    "torch.cuda.memory._set_allocator_settings",
    "torch._subclasses.fake_tensor.FakeTensorMode",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils._pytree.tree_leaves",
    "torch.testing._internal.distributed.fake_pg.FakeStore",
    "torch.nn.Module._forward_pre_hooks",
    "torch.distributed.tensor._sharding_prop.ShardingPropagator",
    f"{_FSDP}._fsdp_collectives.AllGatherResult",
    f"{_FSDP}._fsdp_param.FSDPParam._init_extensions",
    f"{_FSDP}._fsdp_param.FSDPParam.reset_sharded_param",
    f"{_FSDP}._fsdp_param_group.AllGatherState",
    f"{_FSDP}._fsdp_param_group.FSDPParamGroup.fsdp_params",
    f"{_FSDP}._fsdp_param_group.FSDPParamGroup._reset_sharded_params",
    f"{_FSDP}._fsdp_state.FSDPState._fsdp_param_group",
    f"{_FSDP}.FSDPModule._get_fsdp_state",
    "torch.distributed.fsdp.FullyShardedDataParallel._fsdp_wrapped_module",
    "torch.distributed.fsdp._common_utils._FSDPState._handle",
    f"{_FLAT}._param_infos",
    f"{_FLAT}._shapes",
    f"{_FLAT}._shard_param_infos",
    *(("torch.ops.mkldnn._is_mkldnn_bf16_supported",) if torch.backends.mkldnn.is_available() else ()),
    f"{_ATEN}._foreach_copy_",
    f"{_ATEN}._scaled_dot_product_cudnn_attention",
    f"{_ATEN}._scaled_dot_product_efficient_attention",
    f"{_ATEN}._scaled_dot_product_flash_attention",
    f"{_ATEN}._scaled_dot_product_flash_attention_for_cpu",
    f"{_ATEN}._to_copy",
    f"{_ATEN}._unsafe_view",
    f"{_ATEN}._softmax",
    "torch.library._scoped_library",
    "torch.ops.c10d._allgather_base_",
    "torch.ops.c10d._reduce_scatter_base_",
)
"""What a run takes: attributes of modules, of classes, and those that classes give their objects; and what is read
when `torch_private` is imported."""

SIMULATION_NAMES = (
    "torch.Tensor._make_subclass",
    "torch.Tensor._use_count",
    "torch.UntypedStorage._cdata",
    "torch._C._DisableTorchDispatch",
    "torch._C._PreserveDispatchKeyGuard",
    f"{_ATEN}._fused_rms_norm",
    "torch._C._TorchDispatchModeKey.FAKE",
    "torch._C._get_dispatch_mode",
    "torch._C._set_meta_in_tls_dispatch_include",
    "torch._ops.OpOverload._schema",
    "torch._subclasses.fake_tensor.FakeTensorMode._should_skip_dynamo",
    "torch._subclasses.fake_tensor.FakeTensorMode.in_kernel_invocation",
    "torch.distributed.fsdp._flat_param._no_dispatch_record_stream",
    "torch.nn.Module._call_impl",
    "torch.nn.Module._parameters",
    "torch.nn.Module._buffers",
    "torch.nn.Module._forward_hooks",
    "torch.distributed.tensor.DTensor._local_tensor",
    "torch.distributed.tensor._sharding_prop.ShardingPropagator._fake_mode_lock",
    f"{_FSDP}._fsdp_collectives.AllGatherResult.all_gather_output",
    f"{_FSDP}._fsdp_param.FSDPParam._sharded_param_data",
    f"{_FSDP}._fsdp_param_group.AllGatherState.all_gather_result",
    f"{_FSDP}._fsdp_param_group.FSDPCommContext.all_gather_state",
    f"{_FSDP}._fsdp_param_group.FSDPParamGroup._sharded_state",
    f"{_FSDP}._fsdp_state.FSDPState._comm_ctx",
)
"""What simulations take beyond that."""


class UnsupportedTorch(LiveAvatarError):
    """The torch that is installed lacks names that this project takes from inside of it."""


def check_names(names: Sequence[str]) -> None:
    """Raise UnsupportedTorch, naming all that are missing, unless torch has every one of `names`."""
    missing = [name for name in names if not _exists(name)]
    if missing:
        raise UnsupportedTorch(
            f"torch {torch.__version__} has no {', '.join(missing)}",
            f'install a torch that this project is tested with: pip install "torch{TESTED_VERSIONS}"',
        )


def _exists(name: str) -> bool:
    """Whether a dotted name leads somewhere; its last part may be an attribute that objects of a class get."""
    *path, last = name.split(".")
    value: Any = torch
    for depth, part in enumerate(path[1:], start=2):
        try:
            value = getattr(value, part) if hasattr(value, part) else importlib.import_module(".".join(path[:depth]))
        except ImportError:
            return False
    return hasattr(value, last) or (isinstance(value, type) and _gives_objects(value, last))


def _gives_objects(owner: type, name: str) -> bool:
    """Whether a class declares an attribute, or one of its methods sets it."""
    declared = any(name in getattr(each, "__annotations__", {}) for each in owner.__mro__)
    methods = [part for each in owner.__mro__ for part in vars(each).values() if isfunction(part)]
    return declared or any(
        step.opname == "STORE_ATTR" and step.argval == name
        for method in methods
        if name in method.__code__.co_names
        for step in dis.get_instructions(method)
    )
