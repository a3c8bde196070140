"""Denoising by a plain loop in one process, beside the pipeline's own: what every deployment is compared with.

It knows the order of things from the description of the reference alone: a prefill with the portrait, blocks that
attend to earlier ones through a cache for each noise level, a second prefill with the first frame made.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from liveavatar_core.model.cache import KVCache
from liveavatar_core.model.sequence import WholeSequence
from liveavatar_core.model.state import ConditionState
from liveavatar_core.model.transformer import Prefill
from liveavatar_core.parallel.system import System
from liveavatar_core.pipeline.types import Conditioning, LatentBlock
from liveavatar_core.sampling import denoise_block, schedule


def denoise_by_hand(system: System, conditioning: Conditioning, motion_BCTHW: torch.Tensor) -> Iterator[LatentBlock]:
    """Every block of the video; with the streaming decoder only."""
    clip, model = system.recipe.clip, system.recipe.model
    height, width = conditioning.latent_size
    frames, tokens = clip.infer_frames // 4, height * width // 4
    caches = [
        KVCache.allocate(
            model.transformer, 1, frames * tokens, model.transformer.num_heads, system.compute_dtype, "cpu"
        )
        for _ in range(clip.sample_steps)
    ]
    state, reference = _prefilled(system, conditioning, conditioning.reference_BCTHW, motion_BCTHW), None
    for number in range(conditioning.num_clip):
        if number == 1:
            assert reference is not None
            state = _prefilled(system, conditioning, reference, motion_BCTHW)
        generator = torch.Generator().manual_seed(clip.base_seed + number)
        noise = torch.randn((1, model.vae.z_dim, frames, height, width), generator=generator)
        for index, first in enumerate(range(0, frames, 3)):
            last = min(first + 3, frames)
            start = number * frames
            audio = conditioning.audio_BAEJ[..., 4 * (start + first) : 4 * (start + last)]  # type: ignore[index]
            latents = denoise_block(
                system.transformer, state, caches, audio, noise[:, :, first:last], frame=start + first
            )
            reference = latents[:, :, :1] if (number, index) == (0, 0) else reference
            yield LatentBlock(clip=number, index=index, latents_BCTHW=latents)


def _prefilled(
    system: System, conditioning: Conditioning, reference: torch.Tensor, motion_BCTHW: torch.Tensor
) -> ConditionState:
    quirks = system.recipe.clip.quirks
    return system.transformer(
        Prefill(
            reference_BCFHW=reference,
            motion_BCFHW=motion_BCTHW,
            text_BKE=conditioning.context_BLD,
            timesteps=schedule(system.recipe.clip.sample_steps).timesteps,
            relative_dist=quirks.relative_dist,
            float16_rotary_tables=quirks.float16_rotary_tables,
            sequence=WholeSequence(),
        )
    )
