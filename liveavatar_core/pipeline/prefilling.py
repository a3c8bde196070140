"""Phase prefill: keys and values of all conditions, and the caches that blocks fill."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.config import Recipe
from liveavatar_core.model.cache import Cache, Float8KVCache, HostKVCache, KVCache
from liveavatar_core.model.sequence import SequenceLayout, WholeSequence
from liveavatar_core.model.state import ConditionState
from liveavatar_core.model.transformer import LiveAvatarTransformer, Prefill
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.load import DTYPES, resting_parts
from liveavatar_core.parallel.ulysses import Ulysses
from liveavatar_core.parallel.world import World
from liveavatar_core.pipeline.types import Conditioning
from liveavatar_core.sampling import schedule


def prefill(
    transformer: LiveAvatarTransformer, recipe: Recipe, world: World, conditioning: Conditioning, motion_BCTHW: Tensor
) -> tuple[ConditionState, list[Cache]]:
    """Phase prefill: what every block attends to, and an empty cache for each noise level of this rank."""
    sequence = _sequence(recipe, world)
    with scopes.phase("prefill"):
        if "transformer" in resting_parts(recipe):
            world.memory.bring(transformer)
        with scopes.category("kv_cache"):
            request = Prefill(
                reference_BCFHW=conditioning.reference_BCTHW,
                motion_BCFHW=motion_BCTHW,
                text_BKE=conditioning.context_BLD,
                timesteps=schedule(recipe.clip.sample_steps).timesteps,
                relative_dist=recipe.clip.quirks.relative_dist,
                float16_rotary_tables=recipe.clip.quirks.float16_rotary_tables,
                sequence=sequence,
            )
        state = transformer(request)
        return state, [_cache(recipe, world.memory, sequence, conditioning) for _ in range(_steps_here(recipe))]


def renew(
    transformer: LiveAvatarTransformer, state: ConditionState, reference_BCTHW: Tensor, motion_BCTHW: Tensor
) -> None:
    """From the second clip on, the first frame made stands in for the portrait; changes `state` in place."""
    with scopes.phase("prefill"):
        transformer(Prefill(reference_BCFHW=reference_BCTHW, motion_BCFHW=motion_BCTHW, state=state))


def _steps_here(recipe: Recipe) -> int:
    """Noise levels that a rank computes."""
    return 1 if recipe.deployment.timestep_pipeline else recipe.clip.sample_steps


def _sequence(recipe: Recipe, world: World) -> SequenceLayout:
    mesh = world.transformer_ranks
    if recipe.deployment.ulysses_size == 1 or mesh is None:
        return WholeSequence()
    return Ulysses(mesh.get_group())


def _cache(recipe: Recipe, memory: Memory, sequence: SequenceLayout, conditioning: Conditioning) -> Cache:
    params, deployment, (height, width) = recipe.model.transformer, recipe.deployment, conditioning.latent_size
    dtype = DTYPES[deployment.compute_dtype]
    kind = HostKVCache if deployment.offload_kv_cache else KVCache
    allocate = partial(
        kind.allocate,
        params,
        batch=1,
        tokens=recipe.clip.latent_frames_per_clip * (height // 2) * (width // 2),
        heads=sequence.heads(params.num_heads),
        device=memory.card,
    )
    if not deployment.fp8_kv_cache:
        return allocate(dtype=dtype)
    scales = allocate(dtype=torch.float32, width=1)
    return Float8KVCache(allocate(dtype=torch.float8_e4m3fn), scales, dtype)
