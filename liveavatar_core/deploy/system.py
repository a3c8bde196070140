"""Build the parts that a rank holds: constructed without memory, sharded, given memory, filled with weights."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from liveavatar_core import scopes
from liveavatar_core.config import Recipe
from liveavatar_core.cpu_kernels import install_cpu_kernels
from liveavatar_core.deploy.fill import fill
from liveavatar_core.deploy.memory import Memory
from liveavatar_core.deploy.offload import BlockOffload
from liveavatar_core.deploy.quantise import quantise
from liveavatar_core.deploy.sharding import adopt_shards, shard_flat, shard_per_parameter
from liveavatar_core.deploy.world import World
from liveavatar_core.encoders.audio import AudioEncoder
from liveavatar_core.encoders.text import TextEncoder
from liveavatar_core.encoders.vae import VideoVae
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.transformer import LiveAvatarTransformer
from liveavatar_core.weights.adapter import add_adapters
from liveavatar_core.weights.random import SeededSource
from liveavatar_core.weights.source import WeightSource

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

PARTS = ("transformer", "text_encoder", "audio_encoder", "vae")
"""In the order in which they are loaded: flat sharding holds a whole unit for a moment, so it goes first."""

Weights = Mapping[str, WeightSource]
"""A source for each of PARTS."""


@dataclass(frozen=True, kw_only=True)
class System:
    """The parts that one rank holds, in place."""

    recipe: Recipe
    """What was asked for."""
    world: World
    """Which rank this is."""
    parts: dict[str, nn.Module]
    """What it holds of PARTS; a decode rank has no transformer."""

    def rests(self, part: str) -> bool:
        """Whether the part stands in host memory when it does not work."""
        return part in _resting(self.recipe)

    def release(self, *parts: str) -> None:
        """Give up the memory of parts that will not work again."""
        for part in parts:
            self.parts.pop(part, None)
        gc.collect()  # sharded modules hold themselves

    @property
    def transformer(self) -> LiveAvatarTransformer:
        """The diffusion transformer, bare or wrapped."""
        return cast(LiveAvatarTransformer, self.parts["transformer"])

    @property
    def vae(self) -> VideoVae:
        """The video VAE; its encoder and decoder are called one by one."""
        return cast(VideoVae, self.parts["vae"])

    @property
    def compute_dtype(self) -> torch.dtype:
        """What weights are multiplied in."""
        return DTYPES[self.recipe.deployment.compute_dtype]

    @contextmanager
    def on_card(self, part: str) -> Iterator[nn.Module]:
        """The part, in card memory while inside; a part that rests in host memory goes back there.

        Raises InvalidRecipe if it was released.
        """
        if part not in self.parts:
            raise InvalidRecipe(
                f"the {part.replace('_', ' ')} was given up after the first video (free_encoders)",
                "load the model again, or drop free_encoders",
            )
        stays = part == "text_encoder" and self.recipe.deployment.t5_cpu
        module, moves = self.parts[part], self.rests(part) and not stays
        if moves:
            self.world.memory.move_module(module, "card")
        yield module
        if moves:
            self.world.memory.move_module(module, "host")


def load_system(recipe: Recipe, world: World, weights: Weights) -> System:
    """Load every part that this rank holds. Phase load; bytes are parameters."""
    with scopes.phase("load"), scopes.category("parameters"), torch.no_grad():
        parts = {name: _load_part(name, recipe, world, weights[name]) for name in PARTS if _holds(recipe, world, name)}
    return System(recipe=recipe, world=world, parts=parts)


def _holds(recipe: Recipe, world: World, part: str) -> bool:
    if part == "text_encoder" and recipe.deployment.t5_on_decode_rank:
        return world.role == "decode"
    return part != "transformer" or world.computes_transformer


def _load_part(name: str, recipe: Recipe, world: World, source: WeightSource) -> nn.Module:
    deployment = recipe.deployment
    rests = name in _resting(recipe) or (deployment.offload_shards and _is_sharded(name, recipe))
    place = "host" if rests else "card"
    with scopes.place(place):
        module = build_part(name, recipe, stored_dtype(name, recipe))
        if name == "transformer":
            quantise(module, deployment)
            if deployment.offload_blocks:
                _materialise(module.get_submodule("blocks"), world.memory, "host")
        module = _shard(name, module, recipe, world)
        _materialise(module, world.memory, place)
        fill(module, source)
        adopt_shards(module)
    if _is_sharded(name, recipe):
        gc.collect()  # sharding leaves what it replaced in reference cycles, and the next part needs the room
    module.eval().requires_grad_(False)
    if name == "transformer" and deployment.offload_blocks:
        BlockOffload(module, list(module.get_submodule("blocks").children()), world.memory)
    return module


def _resting(recipe: Recipe) -> tuple[str, ...]:
    """Parts that stand in host memory when they do not work."""
    if recipe.deployment.offload_model:
        blocks_rest = recipe.deployment.offload_blocks  # and what is left of the transformer works in every phase
        return ("text_encoder", "audio_encoder") if blocks_rest else ("transformer", "text_encoder", "audio_encoder")
    return ("text_encoder",) if recipe.deployment.t5_cpu else ()


def _is_sharded(name: str, recipe: Recipe) -> bool:
    deployment = recipe.deployment
    return deployment.shard != "none" and (name == "transformer" or deployment.shard_scope == "everything")


def stored_dtype(name: str, recipe: Recipe) -> torch.dtype:
    """Sharded parts are kept in the storage type; whole ones in the type that they compute in."""
    deployment = recipe.deployment
    return DTYPES[deployment.storage_dtype if _is_sharded(name, recipe) else deployment.compute_dtype]


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


def _shard(name: str, module: nn.Module, recipe: Recipe, world: World) -> nn.Module:
    mesh = world.transformer_ranks if name == "transformer" else world.all_ranks
    if mesh is None or not _is_sharded(name, recipe):
        return module
    deployment = recipe.deployment
    if deployment.shard == "flat":
        return shard_flat(
            module,
            mesh,
            granularity=deployment.shard_units,
            device=world.memory.card,
            reshard=deployment.reshard_after_forward,
        )
    dtype = DTYPES[deployment.compute_dtype]
    shard_per_parameter(
        module,
        mesh,
        granularity=deployment.shard_units,
        compute_dtype=dtype,
        reshard=deployment.reshard_after_forward,
        offload=world.memory if deployment.offload_shards else None,
    )
    return module


def _materialise(module: nn.Module, memory: Memory, place: str) -> None:
    """Give memory to what is still on meta: to this rank's shards alone, where DTensor's own way forms the whole."""
    with scopes.place(place):
        for owner in module.modules():
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
