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
from liveavatar_core.model.transformer import Prefill
from liveavatar_core.parallel.system import System
from liveavatar_core.parallel.ulysses import Ulysses
from liveavatar_core.pipeline.types import Conditioning
from liveavatar_core.sampling import schedule


def prefill(system: System, conditioning: Conditioning) -> tuple[ConditionState, list[Cache]]:
    """Phase prefill: what every block attends to, and an empty cache for each noise level of this rank."""
    recipe, world = system.recipe, system.world
    sequence = _sequence(system)
    with scopes.phase("prefill"):
        if system.rests("transformer"):
            world.memory.move_module(system.transformer, "card")
        with scopes.category("kv_cache"):
            request = Prefill(
                reference_BCFHW=conditioning.reference_BCTHW,
                motion_BCFHW=conditioning.motion_BCTHW,
                text_BKE=conditioning.context_BLD,
                timesteps=schedule(recipe.clip.sample_steps).timesteps,
                relative_dist=recipe.clip.quirks.relative_dist,
                float16_rotary_tables=recipe.clip.quirks.float16_rotary_tables,
                sequence=sequence,
            )
        state = system.transformer(request)
        return state, [_cache(system, sequence, conditioning) for _ in range(_steps_here(recipe))]


def renew(system: System, conditioning: Conditioning, state: ConditionState, reference: Tensor) -> None:
    """From the second clip on, the first frame made stands in for the portrait."""
    with scopes.phase("prefill"):
        system.transformer(Prefill(reference_BCFHW=reference, motion_BCFHW=conditioning.motion_BCTHW, state=state))


def _steps_here(recipe: Recipe) -> int:
    """Noise levels that a rank computes."""
    return 1 if recipe.deployment.timestep_pipeline else recipe.clip.sample_steps


def _sequence(system: System) -> SequenceLayout:
    mesh = system.world.transformer_ranks
    if system.recipe.deployment.ulysses_size == 1 or mesh is None:
        return WholeSequence()
    return Ulysses(mesh.get_group())


def _cache(system: System, sequence: SequenceLayout, conditioning: Conditioning) -> Cache:
    recipe, (height, width) = system.recipe, conditioning.latent_size
    params, deployment = recipe.model.transformer, recipe.deployment
    kind = HostKVCache if deployment.offload_kv_cache else KVCache
    allocate = partial(
        kind.allocate,
        params,
        batch=1,
        tokens=recipe.clip.latent_frames_per_clip * (height // 2) * (width // 2),
        heads=sequence.heads(params.num_heads),
        device=system.world.memory.card,
    )
    if not deployment.fp8_kv_cache:
        return allocate(dtype=system.compute_dtype)
    scales = allocate(dtype=torch.float32, width=1)
    return Float8KVCache(allocate(dtype=torch.float8_e4m3fn), scales, system.compute_dtype)
