"""Stage 5 and what comes out: a LoRA that makes few steps enough, and the checkpoint in the published layout.

Legend: B batch, C channels, F latent frames, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from liveavatar_core.model.transformer import Denoise, LiveAvatarTransformer
from liveavatar_core.recipes import TINY
from liveavatar_core.sampling import schedule
from liveavatar_core.weights.checkpoint import write_checkpoint
from liveavatar_core.weights.names import Component
from liveavatar_core.weights.shipped import LORA
from liveavatar_core.weights.source import TensorSource
from tiny_avatar.training.loop import Losses
from tiny_avatar.training.transformer import GrowingCache, Window, contexts_of, prefilled, weighted

STEPS = 4


def rollout_losses(model: LiveAvatarTransformer, window: Window) -> Losses:
    """Denoise a window as inference does, and at every step ask for the clean latents from where it has come to.

    Gradients flow within a step and through its cache, not from step to step: what a step starts from is given.
    """
    levels = schedule(STEPS)
    state, contexts = prefilled(model, window, levels.timesteps), contexts_of(window)
    caches = [GrowingCache() for _ in levels.timesteps]
    losses: dict[int, list[Tensor]] = {step: [] for step in range(STEPS)}
    for clean, context in zip(window.blocks, contexts, strict=True):
        latents = torch.randn_like(clean)
        for step, cache in enumerate(caches):
            flow = model(Denoise(latents_BCFHW=latents, step=step, block=context, cache=cache, state=state))
            now, then = levels.sigmas[step : step + 2]
            losses[step].append(weighted(latents - now * flow - clean, clean, window))
            latents = (latents + (then - now) * flow).detach()
    means = [torch.stack(losses[step]).mean() for step in range(STEPS)]
    return {"loss": torch.stack(means[:-1]).mean(), "made": means[-1].detach()}


def write_avatar(folder: Path, parts: Mapping[Component, Mapping[str, Tensor]], lora: Mapping[str, Tensor]) -> None:
    """The checkpoint and, beside it, its LoRA, in bfloat16 and the published layout. Raises CheckpointError."""
    weights = {part: TensorSource({n: _stored(w) for n, w in tensors.items()}) for part, tensors in parts.items()}
    write_checkpoint(folder, TINY, weights)
    save_file({name: _stored(weight) for name, weight in lora.items()}, folder / LORA.name, metadata={"format": "pt"})


def _stored(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.bfloat16).contiguous()
