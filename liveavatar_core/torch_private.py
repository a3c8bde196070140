"""Every use of names of torch that its authors do not promise to keep, under names of our own.

Nothing else in the project uses a private name of torch; `torch_names` lists them and looks for them first.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

from liveavatar_core.torch_names import RUN_NAMES, check_names

check_names(RUN_NAMES)

from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # noqa: E402
from torch.distributed.fsdp import _flat_param  # noqa: E402
from torch.distributed.fsdp._fully_shard._fsdp_collectives import AllGatherResult  # noqa: E402
from torch.distributed.fsdp._fully_shard._fsdp_param_group import AllGatherState  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402
from torch.distributed.tensor._sharding_prop import ShardingPropagator  # noqa: E402
from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

__all__ = ["FakeStore", "FakeTensor", "FakeTensorMode", "TorchDispatchMode", "tree_leaves"]

# Operations. What torch offers publicly gives no log-sum-exp, which attention in two parts needs.

aten, c10d = torch.ops.aten, torch.ops.c10d
flash_attention_cpu = aten._scaled_dot_product_flash_attention_for_cpu
flash_attention_cuda = aten._scaled_dot_product_flash_attention
cudnn_attention_cuda = aten._scaled_dot_product_cudnn_attention
efficient_attention_cuda = aten._scaled_dot_product_efficient_attention
ATTENTION = frozenset({flash_attention_cpu, flash_attention_cuda, efficient_attention_cuda, cudnn_attention_cuda})
"""Operations whose first three arguments are query, key and value."""
to_copy, foreach_copy, unsafe_view = aten._to_copy, aten._foreach_copy_, aten._unsafe_view
all_gather_base, reduce_scatter_base = c10d._allgather_base_, c10d._reduce_scatter_base_
scaled_mm = torch._scaled_mm
ATTENTION_KERNELS = {
    "cpu": {"_scaled_dot_product_flash_attention_for_cpu": "flash"},
    "cuda": {
        "_scaled_dot_product_flash_attention": "flash",
        "_scaled_dot_product_cudnn_attention": "cudnn",
        "_scaled_dot_product_efficient_attention": "efficient",
    },
}
"""The operations that compute attention, by device, and what people call them."""
WRITTEN_OUT = {"_softmax": "softmax"}
"""What attention comes to where no kernel takes it: torch's own fallback, or a formula written by hand."""
FUSED_RMS_NORM = "aten::_fused_rms_norm"
schema_of: Callable[[Any], Any] = attrgetter("_schema")
"""The schema of an operation's overload."""


@contextmanager
def attention_told(device_type: str, listener: Callable[[str], None]) -> Iterator[None]:
    """Tell `listener` of each attention that is computed on the CPU or on a card, by its kernel, before it is.

    Heard of is what torch's dispatcher is about to run, whoever asked for it: code that was compiled, and what
    `scaled_dot_product_attention` chose. Fake tensors compute nothing.
    """
    with torch.library._scoped_library("aten", "IMPL") as library, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        for name, kernel in (ATTENTION_KERNELS[device_type] | WRITTEN_OUT).items():
            before = torch.library.get_kernel(f"aten::{name}", device_type.upper())
            told = partial(_tell_first, listener, kernel, before.call_boxed)
            library.impl(f"aten::{name}", told, device_type.upper(), with_keyset=True)
        yield


def _tell_first(listener: Callable[[str], None], kernel: str, call: Callable, *args: Any, **options: Any) -> Any:
    listener(kernel)
    return call(*args, **options)


def has_onednn_bfloat16() -> bool:
    """Whether oneDNN has kernels for bfloat16 on this processor; torch must have been built with oneDNN."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


# Tensors, storages, modules

storage_key: Callable[[torch.UntypedStorage], int] = attrgetter("_cdata")
"""What tells a storage from all others that live at the same time, whoever asks for it."""
local_shard: Callable[[DTensor], Tensor] = attrgetter("_local_tensor")
"""The shard of a DTensor that this rank holds, without a word to autograd."""
CALL_METHOD = "_call_impl"
"""The method of a module that calls its hooks and its forward."""


def holders_of(tensor: Tensor) -> int:
    """How many hold the tensor, those of C++ counted."""
    return tensor._use_count()  # type: ignore[attr-defined]


def weight_tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and buffers of a module itself, as it keeps them."""
    return module._parameters, module._buffers


def forward_hooks(module: nn.Module) -> Iterator[Callable]:
    """What is called behind the forward of a module."""
    yield from module._forward_hooks.values()


def forward_pre_hooks(module: nn.Module) -> Iterator[Callable]:
    """What is called before the forward of a module."""
    yield from module._forward_pre_hooks.values()


def dump_allocator_snapshot(path: str) -> None:
    """Write what torch's CUDA allocator holds and has recorded, for pytorch.org/memory_viz."""
    torch.cuda.memory._dump_snapshot(path)


def set_allocator(settings: str) -> None:
    """Set torch's CUDA allocator as PYTORCH_CUDA_ALLOC_CONF would; before anything stands on a card."""
    torch.cuda.memory._set_allocator_settings(settings)


def checkpoint_places(path: Path) -> dict[str, int]:
    """The byte in a zipped .pth file at which each weight's values begin, of those that lie there in their order."""
    with FakeTensorMode():  # reads no values
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    lies = {name: each for name, each in loaded.items() if each.is_contiguous()}
    return {
        name: each.untyped_storage()._checkpoint_offset + each.storage_offset() * each.itemsize
        for name, each in lies.items()
    }


# Fake tensors and dispatch


def without_dispatch() -> AbstractContextManager:
    """Inside, operations on fake tensors reach the kernels of what they are made of."""
    return torch._C._DisableTorchDispatch()


class PlainFakeMode(FakeTensorMode):
    """FakeTensorMode of which no operation asks the compiler, which takes time, whether it is tracing."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def in_meta_kernel(mode: FakeTensorMode, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Call `func` on fake tensors as on meta tensors: in_kernel_invocation_manager without the cost of a generator."""
    with torch._C._DisableTorchDispatch():
        mode.in_kernel_invocation = True
        with torch._C._PreserveDispatchKeyGuard():
            torch._C._set_meta_in_tls_dispatch_include(True)
            try:
                return func(*args, **kwargs)
            finally:
                mode.in_kernel_invocation = False


def fake_from_meta(elem: Tensor, device: torch.device, attributes: Mapping[str, Any]) -> FakeTensor:
    """A fake tensor over a meta tensor, its attributes given rather than worked out."""
    made = Tensor._make_subclass(FakeTensor, elem, False, dispatch_device=True, device_for_backend_keys=device)
    made.__dict__.update(attributes)
    return made


def innermost_fake_mode() -> FakeTensorMode | None:
    """The mode that makes fake tensors of what is made at this moment."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)


# fully_shard


def sharded_parameters(unit: nn.Module) -> list[Any]:
    """What `fully_shard` keeps for each parameter that is in shards in this unit itself; empty for other modules."""
    group = _parameter_group(unit)
    return [] if group is None else list(group.fsdp_params)


def _parameter_group(unit: nn.Module | FSDPModule) -> Any:
    """What `fully_shard` gathers at once for a unit; None where it has nothing of its own to gather."""
    return unit._get_fsdp_state()._fsdp_param_group if isinstance(unit, FSDPModule) else None


def shard_data(parameter: Any) -> Tensor:
    """The flat shard of one of `sharded_parameters` that this rank holds."""
    return parameter._sharded_param_data


def set_shard_data(parameter: Any, data: Tensor) -> None:
    """Have the next gather of one of `sharded_parameters` read `data`."""
    parameter._sharded_param_data = data


def adopt_shards(unit: nn.Module) -> None:
    """Let `fully_shard` take up the shards that were put in place, now: the last ranks' are padded to a full share.

    Its first forward would do it otherwise, and the copies would seem to be gathered weights.
    """
    group = _parameter_group(unit)
    if group is not None:
        for parameter in group.fsdp_params:
            parameter.reset_sharded_param()
            parameter._init_extensions()
        group._reset_sharded_params = True


def sharded_state(unit: FSDPModule) -> Any:
    """Whether the parameters of a unit lie in shards or are gathered; None where it has none of its own."""
    group = _parameter_group(unit)
    return None if group is None else group._sharded_state


def gathered_leftover(unit: FSDPModule) -> Tensor | None:
    """The gathered bytes that the last unit left to be freed by the next one."""
    state = getattr(unit._get_fsdp_state()._comm_ctx, "all_gather_state", None)  # there is none before the first
    return None if state is None else state.all_gather_result.all_gather_output


def set_gathered_leftover(unit: FSDPModule, left: Tensor | None) -> None:
    """Put `left` where `fully_shard` keeps gathered bytes until the next unit; what was there is freed."""
    state = None if left is None else AllGatherState(AllGatherResult(left, None, None, [], [], []), None)
    unit._get_fsdp_state()._comm_ctx.all_gather_state = state


# FullyShardedDataParallel

WRAPPER = "_fsdp_wrapped_module"
"""What flat sharding puts into the names of modules and weights."""


class FlatWeight(NamedTuple):
    """One weight in a flat parameter, and what of it this rank holds."""

    name: str
    """Name of the weight in its unit."""
    shape: tuple[int, ...]
    """Shape of the whole weight."""
    first: int
    """The first of its elements that this rank holds."""
    last: int
    """The last one; -1 behind first 0 where it holds none."""


def wrapped_module(unit: FullyShardedDataParallel) -> nn.Module:
    """The module that flat sharding wraps."""
    return unit._fsdp_wrapped_module


def flat_weights(unit: nn.Module) -> Iterator[FlatWeight]:
    """Every weight in the unit's own flat parameter; none where it has none."""
    handle = unit._handle if isinstance(unit, FullyShardedDataParallel) else None
    if handle is None:
        return
    flat: Any = handle.flat_param
    for info, shape, shard in zip(flat._param_infos, flat._shapes, flat._shard_param_infos, strict=True):
        name = ".".join(filter(None, (info.module_name, info.param_name)))
        span = (shard.intra_param_start_idx, shard.intra_param_end_idx) if shard.in_shard else (0, -1)
        yield FlatWeight(name, tuple(shape), *span)


# What is replaced for a while; what was there before is always put back.


@contextmanager
def replaced(owner: Any, name: str, by: Callable[[Any], Any]) -> Iterator[None]:
    """Have `owner` hold under `name` what `by` makes of what is there."""
    before, own = getattr(owner, name), name in vars(owner)
    setattr(owner, name, by(before))
    try:
        yield
    finally:
        setattr(owner, name, before) if own else delattr(owner, name)


def shape_inference_in(context: AbstractContextManager) -> AbstractContextManager[None]:
    """Have DTensor work out shapes of results inside of `context` and of whatever it did so in before.

    `context` is entered once for each kind of operation, so it must be one that can be entered again.
    """
    return replaced(ShardingPropagator, "_fake_mode_lock", lambda before: _Nested(before, context))


class _Nested:
    """Several contexts as one that can be entered again and again, as they can."""

    def __init__(self, *contexts: AbstractContextManager) -> None:
        self._contexts = contexts
        self._entered: list[ExitStack] = []

    def __enter__(self) -> None:
        with ExitStack() as stack:
            for context in self._contexts:
                stack.enter_context(context)
            self._entered.append(stack.pop_all())

    def __exit__(self, *exc: Any) -> None:
        self._entered.pop().__exit__(*exc)


def _told(owner: Any, name: str, listener: Callable[..., None]) -> AbstractContextManager[None]:
    """Have `listener` hear of each call of a function, with its arguments, before it does anything."""
    return replaced(owner, name, lambda before: lambda *args: (listener(*args), before(*args))[-1])  # type: ignore[func-returns-value]


def resizes_told(listener: Callable[[torch.UntypedStorage, int], None]) -> AbstractContextManager[None]:
    """Tell `listener` of every storage resize, before it happens: they are no operations that dispatch shows."""
    return _told(torch.UntypedStorage, "resize_", listener)


def stream_uses_told(listener: Callable[[Tensor, torch.Stream], None]) -> AbstractContextManager[None]:
    """Tell `listener`, and no card, of every tensor that flat sharding says another stream works with."""
    return replaced(_flat_param, "_no_dispatch_record_stream", lambda _: listener)


def compile_seconds() -> float:
    """Seconds that this process has spent on making graphs and kernels of code (torch.compile)."""
    dynamo = sys.modules.get("torch._dynamo.utils")  # importing it takes seconds, and what compiles has done so
    return float(dynamo.calculate_time_spent()["total_wall_time"]) if dynamo is not None else 0.0
