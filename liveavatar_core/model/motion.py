"""Motion frames: the last latents before a clip, packed the tighter the older they are.

Legend: B batch, F frames, H W latent height and width, N tokens, C token width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from liveavatar_core.model.layers import PatchEmbedding
from liveavatar_core.model.params import TransformerParams

MOTION_LATENT_FRAMES = 19
"""16 frames at a quarter of the resolution, 2 at half, the newest whole."""


class FramePacker(nn.Module):
    """Embeds the last 19 motion latents with three patch sizes."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        self.proj = PatchEmbedding(params.in_dim, params.dim, (1, 2, 2))
        self.proj_2x = PatchEmbedding(params.in_dim, params.dim, (2, 4, 4))
        self.proj_4x = PatchEmbedding(params.in_dim, params.dim, (4, 8, 8))

    def forward(self, motion_BCFHW: Tensor) -> Tensor:
        """Latents, oldest first, to tokens BNC, newest first; zeros stand for what 19 frames lack."""
        missing = max(0, MOTION_LATENT_FRAMES - motion_BCFHW.shape[2])
        padded = F.pad(motion_BCFHW[:, :, -MOTION_LATENT_FRAMES:], (0, 0, 0, 0, missing, 0))
        oldest, older, newest = padded.split((16, 2, 1), dim=2)
        packed = (self.proj(newest), self.proj_2x(older), self.proj_4x(oldest))
        return torch.cat([tokens.flatten(1, 2) for tokens in packed], dim=1)
