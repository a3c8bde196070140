"""Stage 4: the transformer learns flows, block after block, with the caches and the sink that inference has.

Legend: B batch, C latent channels, T F latent frames, H W latent height and width, A audio layers, E audio width,
J video frames, L text tokens, D text width, K cached tokens, h heads, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from liveavatar_core.config import FRAMES_PER_BLOCK, LATENT_FRAMES_PER_BLOCK
from liveavatar_core.model.state import BlockContext, ConditionState
from liveavatar_core.model.transformer import Denoise, LiveAvatarTransformer, Prefill
from tiny_avatar.training.data import BLOCKS, MOTION_LATENTS, STILL_LATENTS, Examples
from tiny_avatar.training.loop import Losses

CACHED_BLOCKS = 4
_LATER = 130
"""Blocks after the first clip among which a window may start: a video of half a minute and more."""
_MOVING = 4.0
"""Weight of what moves against what rests."""


class GrowingCache:
    """A KV cache that gradients flow through; it keeps the last four blocks, as the ring of inference does."""

    tokens = 10**9
    """No ring: nothing is overwritten."""

    def __init__(self) -> None:
        self._layers: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def write(self, layer: int, k_BhKd: Tensor, v_BhKd: Tensor, start: int) -> None:
        """Add a block."""
        self._layers[layer] = [*self._layers.get(layer, []), (k_BhKd, v_BhKd)][-CACHED_BLOCKS:]

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """All that is kept."""
        keys, values = zip(*self._layers[layer], strict=True)
        return torch.cat(keys, dim=2), torch.cat(values, dim=2)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of blocks of some videos, and what they are made from."""

    blocks: list[Tensor]
    """Clean latents BCFHW of each block."""
    audio: list[Tensor]
    """Features BAEJ of each block."""
    frame: int
    """Latent frames of the video before the first block."""
    reference_BC1HW: Tensor
    """The portrait, or in later clips the first frame made."""
    motion_BCTHW: Tensor
    """The portrait held still."""
    context_BLD: Tensor
    """Encoded prompts of the videos, padding zero."""


def pick_window(random: np.random.Generator, examples: Examples, contexts: Tensor, batch: int, blocks: int) -> Window:
    """Some videos at one place: in the first clip, or anywhere behind it with the reference that a renewal leaves."""
    which = torch.from_numpy(random.choice(len(examples), size=batch, replace=False))
    latents = examples.latents_VCTHW[which]
    still, video = latents[:, :, :STILL_LATENTS], latents[:, :, STILL_LATENTS:]
    first_clip = random.uniform() < 0.6
    start = 0 if first_clip else int(random.integers(BLOCKS - blocks + 1))
    place = 0 if first_clip else CACHED_BLOCKS + int(random.integers(_LATER))
    motion = torch.cat([still, still[:, :, -1:].expand(-1, -1, MOTION_LATENTS - STILL_LATENTS, -1, -1)], dim=2)
    prompts = torch.from_numpy(random.integers(contexts.shape[2], size=batch))
    count, features = start + blocks, examples.features_VAEJ[which]
    return Window(
        blocks=list(video.split(LATENT_FRAMES_PER_BLOCK, dim=2))[start:count],
        audio=list(features.split(FRAMES_PER_BLOCK, dim=-1))[start:count],
        frame=place * LATENT_FRAMES_PER_BLOCK,
        reference_BC1HW=still[:, :, :1] if first_clip else video[:, :, :1],
        motion_BCTHW=motion,
        context_BLD=contexts[examples.moods_V[which], examples.lights_V[which], prompts],
    )


def prefilled(model: LiveAvatarTransformer, window: Window, timesteps: Sequence[float]) -> ConditionState:
    """The sink of a window, for these noise levels."""
    return model(
        Prefill(
            reference_BCFHW=window.reference_BC1HW,
            motion_BCFHW=window.motion_BCTHW,
            text_BKE=window.context_BLD,
            timesteps=tuple(timesteps),
        )
    )


def flow_losses(model: LiveAvatarTransformer, window: Window, timesteps: Sequence[float]) -> Losses:
    """Flow matching: each noise level with a cache of its own, every block noised alike."""
    state = prefilled(model, window, timesteps)
    contexts = contexts_of(window)
    losses = [_level_loss(model, window, state, contexts, step) for step in range(len(timesteps))]
    return {"loss": torch.stack(losses).mean(), **{f"level_{n}": loss.detach() for n, loss in enumerate(losses)}}


def contexts_of(window: Window) -> list[BlockContext]:
    """Audio and place of each block, shared by its steps."""
    return [
        BlockContext(audio_BAET=audio, frame=window.frame + number * LATENT_FRAMES_PER_BLOCK)
        for number, audio in enumerate(window.audio)
    ]


def _level_loss(
    model: LiveAvatarTransformer, window: Window, state: ConditionState, contexts: list[BlockContext], step: int
) -> Tensor:
    sigma, cache, losses = state.timesteps[step] / 1000, GrowingCache(), []
    for clean, context in zip(window.blocks, contexts, strict=True):
        noise = torch.randn_like(clean)
        noised = (1 - sigma) * clean + sigma * noise
        flow = model(Denoise(latents_BCFHW=noised, step=step, block=context, cache=cache, state=state))
        losses.append(weighted(flow - (noise - clean), clean, window))
    return torch.stack(losses).mean()


def weighted(error_BCFHW: Tensor, clean_BCFHW: Tensor, window: Window) -> Tensor:
    """Mean square error; what differs from the frame before the video counts more."""
    change = (clean_BCFHW - window.motion_BCTHW[:, :, -1:]).abs().mean(dim=1, keepdim=True)
    weight = 1 + _MOVING * change.clamp(max=1)
    return (weight * error_BCFHW.square()).mean() / weight.mean()
