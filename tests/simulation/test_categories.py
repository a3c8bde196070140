"""What bytes are for: each noise level's KV cache is booked as such, to the byte."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))
from fault_targets import smallest

from liveavatar_core.recipes import named_recipe
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.memory_tracker import Capacity

TOKENS = (64 // 16) ** 2
"""Of a latent frame at 64 x 64: the VAE makes an eighth of each side, patches are 2 x 2."""


def peaks(steps: int, frames: int) -> dict[str, int]:
    recipe = smallest(named_recipe("single", 1))
    clip = replace(recipe.clip, sample_steps=steps, infer_frames=frames)
    layout = replace(recipe.deployment, offload_model=False)
    result = simulate_rank(replace(recipe, clip=clip, deployment=layout), 0, Capacity())
    return result.peaks["denoise"].by_category


def test_a_noise_level_more_is_a_kv_cache_more():
    one, two = peaks(1, 24), peaks(2, 24)
    sizes = smallest(named_recipe("single", 1)).model.transformer
    keys_and_values = 2 * sizes.num_layers * sizes.dim * TOKENS * (24 // 4) * 2  # bfloat16
    assert two["kv_cache"] - one["kv_cache"] == keys_and_values
