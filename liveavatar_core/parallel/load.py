"""Load the parts that a rank holds, unit by unit: constructed without memory, sharded, given memory, filled.

What is not sharded is loaded in the same units, so that no more than one of them stands half-way.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from liveavatar_core import scopes
from liveavatar_core.config import Recipe
from liveavatar_core.encoders.audio import AudioEncoder
from liveavatar_core.encoders.text import TextEncoder
from liveavatar_core.encoders.vae import VideoVae
from liveavatar_core.hardware.cpu_kernels import install_cpu_kernels
from liveavatar_core.model.transformer import LiveAvatarTransformer
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.fill import fill, plain_name
from liveavatar_core.parallel.fsdp import shard_flat, shard_per_parameter
from liveavatar_core.parallel.fsdp_units import BLOCKS, unit_paths
from liveavatar_core.parallel.offload import BlockOffload, pin_resting
from liveavatar_core.parallel.quantize import quantize
from liveavatar_core.parallel.world import World
from liveavatar_core.pinned_memory import pinned
from liveavatar_core.torch_private import adopt_shards
from liveavatar_core.weights.adapter import add_adapters
from liveavatar_core.weights.random import SeededSource
from liveavatar_core.weights.source import WeightSource

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

PARTS = ("transformer", "text_encoder", "audio_encoder", "vae")
"""In the order in which they are loaded: flat sharding holds a whole unit for a moment, so it goes first."""

Weights = Mapping[str, WeightSource]
"""A source for each of PARTS."""

LoadUnit = Callable[[nn.Module, str, Callable[[], None]], None]
"""Given a part, the path of one of its units (empty: the rest of the part), and what loads that: calls it."""


def load_at_once(part: nn.Module, path: str, load: Callable[[], None]) -> None:
    """The LoadUnit that does nothing beside."""
    load()


def load_parts(
    recipe: Recipe, world: World, weights: Weights, load_unit: LoadUnit = load_at_once
) -> dict[str, nn.Module]:
    """Load every part that this rank holds. Phase load; bytes are parameters.

    load_unit: calls what loads each unit, for whoever has something to do before or after it.
    """
    with scopes.phase("load"), scopes.category("parameters"), torch.no_grad():
        held = [name for name in PARTS if _holds(recipe, world, name)]
        return {name: _Loading(name, recipe, world, weights[name]).load(load_unit) for name in held}


def _holds(recipe: Recipe, world: World, part: str) -> bool:
    if part == "text_encoder" and recipe.deployment.t5_on_decode_rank:
        return world.role == "decode"
    return part != "transformer" or world.computes_transformer


@dataclass
class _Loading:
    """One part on its way."""

    name: str
    recipe: Recipe
    world: World
    source: WeightSource
    part: nn.Module | None = None
    loaded: set[str] = field(default_factory=set)
    """Names of weights."""

    def load(self, load_unit: LoadUnit) -> nn.Module:
        """The part, in place."""
        deployment = self.recipe.deployment
        with scopes.place(self._place("")):
            module = self.part = build_part(self.name, self.recipe, stored_dtype(self.name, self.recipe))
            if self.name == "transformer":
                quantize(module, deployment)
            for path in (*unit_paths(module, load_granularity(self.recipe)), ""):
                load_unit(module, path, partial(self._load_at, module, path))
            module = self.part
        if is_sharded(self.name, self.recipe):
            gc.collect()  # sharding leaves what it replaced in reference cycles, and the next part needs the room
        module.eval().requires_grad_(False)
        if self.name in resting_parts(self.recipe) and not self._computes_on_host():
            pin_resting(module, self.world.memory)
        if self.name == "transformer" and deployment.offload_blocks:
            BlockOffload(module, list(module.get_submodule("blocks")), self.world.memory)  # type: ignore[call-overload]
        return module

    def _computes_on_host(self) -> bool:
        return self.name == "text_encoder" and self.recipe.deployment.t5_cpu

    def _load_at(self, part: nn.Module, path: str) -> None:
        """Load a unit, or with an empty path what is in no unit."""
        loaded = self._load(part.get_submodule(path), path)
        owner, _, name = path.rpartition(".")
        if name:
            setattr(part.get_submodule(owner), name, loaded)
        else:
            self.part = loaded

    def _load(self, unit: nn.Module, path: str) -> nn.Module:
        """Load what of `unit` is not loaded yet; returns it, wrapped if its kind of sharding does that."""
        prefix = f"{path}." if path else ""
        weights = [plain_name(name) for name, _ in unit.named_parameters()]
        names = [name for name in weights if prefix + name not in self.loaded]
        if not names:
            return unit
        self.loaded.update(prefix + name for name in names)
        place = self._place(path)
        with scopes.place(place):
            unit = self._shard(unit)
            _materialise(unit, self.world.memory, place)
            fill(unit, names, self.source, prefix)
            self._pin(unit)
            adopt_shards(unit)
        return unit

    def _pin(self, unit: nn.Module) -> None:
        """Pin shards that rest in host memory, before `fully_shard` does so in powers of two."""
        if self.recipe.deployment.offload_shards and self.world.memory.card.type == "cuda":
            for weight in unit.parameters():
                pinned(weight.to_local() if isinstance(weight, DTensor) else weight)

    def _place(self, path: str) -> str:
        """The memory in which the weights at a path stand."""
        deployment = self.recipe.deployment
        block_rests = deployment.offload_blocks and self.name == "transformer" and BLOCKS.fullmatch(path)
        shards_rest = deployment.offload_shards and is_sharded(self.name, self.recipe)
        return "host" if block_rests or shards_rest or self.name in resting_parts(self.recipe) else "card"

    def _shard(self, unit: nn.Module) -> nn.Module:
        mesh = self.world.transformer_ranks if self.name == "transformer" else self.world.all_ranks
        if mesh is None or not is_sharded(self.name, self.recipe):
            return unit
        deployment, memory = self.recipe.deployment, self.world.memory
        if deployment.shard == "flat":
            return shard_flat(unit, mesh, device=memory.card, reshard=deployment.reshard_after_forward)
        shard_per_parameter(
            unit,
            mesh,
            compute_dtype=DTYPES[deployment.compute_dtype],
            reshard=deployment.reshard_after_forward,
            offload=memory if deployment.offload_shards else None,
        )
        return unit


def load_granularity(recipe: Recipe) -> str:
    """The units that parts are loaded in: those of the shards, or the fine ones where nothing is sharded."""
    return recipe.deployment.shard_units if recipe.deployment.shard != "none" else "fine"


def resting_parts(recipe: Recipe) -> tuple[str, ...]:
    """Parts that stand in host memory when they do not work."""
    if recipe.deployment.offload_model:
        blocks_rest = recipe.deployment.offload_blocks  # and what is left of the transformer works in every phase
        return ("text_encoder", "audio_encoder") if blocks_rest else ("transformer", "text_encoder", "audio_encoder")
    return ("text_encoder",) if recipe.deployment.t5_cpu else ()


def is_sharded(part: str, recipe: Recipe) -> bool:
    """Whether a part lies in shards over ranks."""
    deployment = recipe.deployment
    return deployment.shard != "none" and (part == "transformer" or deployment.shard_scope == "everything")


def stored_dtype(name: str, recipe: Recipe) -> torch.dtype:
    """Sharded parts are kept in the storage type; whole ones in the type that they compute in."""
    deployment = recipe.deployment
    return DTYPES[deployment.storage_dtype if is_sharded(name, recipe) else deployment.compute_dtype]


def build_part(name: str, recipe: Recipe, dtype: torch.dtype) -> nn.Module:
    """One of PARTS on the meta device, in `dtype`."""
    install_cpu_kernels()
    model = recipe.model
    makers: dict[str, Callable[[], nn.Module]] = {
        "transformer": lambda: _build_transformer(recipe),
        "text_encoder": lambda: TextEncoder(model.text_encoder),
        "audio_encoder": lambda: AudioEncoder(model.audio_encoder),
        "vae": lambda: VideoVae(model.vae),
    }
    with torch.device("meta"), _default_dtype(dtype):
        return makers[name]()


def _build_transformer(recipe: Recipe) -> nn.Module:
    transformer = LiveAvatarTransformer(recipe.model.transformer)
    if recipe.deployment.lora == "adapter":
        add_adapters(transformer, recipe.deployment.lora_rank)
    return transformer


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _materialise(unit: nn.Module, memory: Memory, place: str) -> None:
    """Give memory to what is still on meta: to this rank's shards alone, where DTensor's own way forms the whole."""
    for owner in unit.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.is_meta:
                empty = _empty(parameter, memory.device(place))
                owner.register_parameter(name, nn.Parameter(empty, requires_grad=False))


def _empty(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if not isinstance(tensor, DTensor):
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    local = torch.empty(tensor.to_local().shape, dtype=tensor.dtype, device=device)
    mesh, placements = tensor.device_mesh, tensor.placements
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride())


def seeded_weights(recipe: Recipe) -> Weights:
    """Random values for every part, the same for the same recipe seed on every machine."""
    seed = recipe.clip.base_seed
    return {name: SeededSource.for_module(build_part(name, recipe, torch.float32), seed) for name in PARTS}
