"""Schedule and denoising of one block.

Legend: B batch, C latent channels, F latent frames, H W latent height and width, A audio layers, E audio
width, T video frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from liveavatar_core.model.cache import Cache
from liveavatar_core.model.state import BlockContext, ConditionState
from liveavatar_core.model.transformer import Denoise, LiveAvatarTransformer

SHIFT = 3.0
SMALLEST_SIGMA = 0.001
TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Noise levels of the steps."""

    sigmas: tuple[float, ...]
    """Noise level before each step, and 0 after the last."""
    timesteps: tuple[float, ...]
    """What the transformer is told, 0..1000, one a step."""


def schedule(steps: int) -> Schedule:
    """Flow matching with shift 3; the shift acts twice on the smallest level, as in the original."""
    last = _shifted(SMALLEST_SIGMA)
    sigmas = [_shifted(1.0 + (last - 1.0) * step / max(steps - 1, 1)) for step in range(steps)]
    return Schedule(sigmas=(*sigmas, 0.0), timesteps=tuple(TRAIN_TIMESTEPS * sigma for sigma in sigmas))


def _shifted(sigma: float) -> float:
    return SHIFT * sigma / (1 + (SHIFT - 1) * sigma)


def euler_step(latents_BCFHW: Tensor, flow_BCFHW: Tensor, sigmas: Sequence[float], step: int) -> Tensor:
    """Latents at noise level sigmas[step] to sigmas[step + 1]; float32."""
    return latents_BCFHW.float() + (sigmas[step + 1] - sigmas[step]) * flow_BCFHW.float()


def denoise_block(
    transformer: LiveAvatarTransformer,
    state: ConditionState,
    caches: Sequence[Cache],
    audio_BAET: Tensor,
    noise_BCFHW: Tensor,
    frame: int,
) -> Tensor:
    """Denoise one block through all steps of the state's schedule.

    Args:
        transformer: the model, sharded or whole.
        state: from a prefill.
        caches: one a step; step i reads and writes caches[i] alone.
        audio_BAET: features of the block's video frames.
        noise_BCFHW: where to start.
        frame: first latent frame of the block since the start of the video.

    Returns:
        Clean latents BCFHW, float32.
    """
    block, latents_BCFHW = BlockContext(audio_BAET=audio_BAET, frame=frame), noise_BCFHW.float()
    for step, cache in enumerate(caches):
        latents_BCFHW = denoise_step(transformer, state, cache, block, latents_BCFHW, step)
    return latents_BCFHW


def denoise_step(
    transformer: LiveAvatarTransformer,
    state: ConditionState,
    cache: Cache,
    block: BlockContext,
    latents_BCFHW: Tensor,
    step: int,
) -> Tensor:
    """Latents of a block one step cleaner, float32. `cache` is the step's own; `block` the same in all its steps."""
    sigmas = [timestep / TRAIN_TIMESTEPS for timestep in state.timesteps] + [0.0]
    request = Denoise(latents_BCFHW=latents_BCFHW, step=step, block=block, cache=cache, state=state)
    return euler_step(latents_BCFHW, transformer(request), sigmas, step)
