"""What goes into the pipeline, between its stages and out of it.

Legend: B batch (1), C channels, T latent frames, H W latent height and width, L text tokens, D text width,
A audio layers, E audio width, J video frames, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

NoiseSource = Callable[[int, tuple[int, ...]], Tensor]
"""Noise of a clip (its number from 0, its shape BCTHW): float32, in host memory."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a person gives."""

    image: Image.Image
    """The portrait, RGB."""
    waveform: np.ndarray
    """The voice: float32 [samples], 16 kHz, mono."""
    prompt: str
    """What the video shows."""


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Inputs as the transformer and the decoder take them; on the card but for the audio."""

    context_BLD: Tensor | None
    """Encoded prompt, zero beyond its end; None on a decode rank."""
    audio_BAEJ: Tensor | None
    """Audio features of every video frame, in host memory; None on a decode rank."""
    reference_BCTHW: Tensor
    """Latent of the portrait, one frame."""
    portrait_BCJhw: Tensor | None
    """The portrait in -1..1, one frame, for the clip-wise decoder; None elsewhere."""
    num_clip: int
    """Clips to make: what was asked for, or what the voice lasts for."""

    @property
    def latent_size(self) -> tuple[int, int]:
        """Latent height and width."""
        height, width = self.reference_BCTHW.shape[-2:]
        return height, width


@dataclass(frozen=True, kw_only=True)
class LatentBlock:
    """A block as it leaves a rank."""

    clip: int
    """The clip that the block belongs to, from 0."""
    index: int
    """The place of the block in its clip, from 0."""
    latents_BCTHW: Tensor
    """Float32; clean, but on the ranks of a timestep pipeline, where they have the noise level that goes on."""


LatentWatch = Callable[[LatentBlock], None]
"""Is shown each block of latents before it is decoded."""


@dataclass(frozen=True, kw_only=True)
class FrameBlock:
    """What one block came to."""

    clip: int
    """The clip that the block belongs to, from 0."""
    index: int
    """The place of the block in its clip, from 0."""
    frames_JHWC: Tensor | None
    """uint8, red green blue, in host memory; None on a rank that does not decode."""
