"""Latents to frames, in one stream, or clip by clip as the original's single-card pipeline does it.

Legend: B batch (1), C channels, T latent frames, H W latent height and width, J video frames, h w pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.config import Recipe
from liveavatar_core.encoders.vae import StreamingDecoder, VideoVae, encode_video
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.load import DTYPES
from liveavatar_core.parallel.system import System
from liveavatar_core.pipeline.types import Conditioning, FrameBlock, LatentBlock

WARM_UP_LATENTS = 7
"""Motion latents that the streaming decoder sees before the video, as in the original's timestep pipeline."""


DECODER_REACH_LATENTS = 40
"""No frame depends on latents further back: by their kernels the decoder's causal convolutions reach 38."""


class FrameDecoder(Protocol):
    """Decodes the blocks of one video, in order."""

    motion_BCTHW: Tensor
    """Latents of the frames before the clip that begins next."""

    def pieces(self, block: LatentBlock) -> Iterator[Tensor]:
        """Frames BCJhw of each latent frame in turn, clamped to -1..1; exhaust it before the next block."""
        ...


class StreamDecoder:
    """One causal cache from the first frame to the last, warmed up with the portrait."""

    def __init__(self, vae: VideoVae, recipe: Recipe, motion_BCTHW: Tensor) -> None:
        """`motion_BCTHW`: the portrait held still; it stands before every clip."""
        self.motion_BCTHW = motion_BCTHW
        self._decoder, self._dtype = StreamingDecoder(vae), DTYPES[recipe.deployment.compute_dtype]
        self._drop = recipe.clip.quirks.first_frames_dropped
        with scopes.phase("decode"):
            exhaust(self._decoder.frames(motion_BCTHW[:, :, :WARM_UP_LATENTS], self._dtype))

    def pieces(self, block: LatentBlock) -> Iterator[Tensor]:
        """Frames of each latent frame in turn."""
        for piece_BCJhw in self._decoder.frames(block.latents_BCTHW, self._dtype):
            kept = piece_BCJhw[:, :, self._drop :].clamp(-1, 1)
            self._drop = max(0, self._drop - piece_BCJhw.shape[2])
            yield kept


class ClipwiseDecoder:
    """A new cache for every clip, filled by decoding the latents of the frames before it.

    Behind each clip but the last, the last frames (as many as the motion has) are encoded again, as the motion of the
    next one.
    """

    def __init__(self, vae: VideoVae, recipe: Recipe, conditioning: Conditioning, motion_BCTHW: Tensor) -> None:
        """`motion_BCTHW`: the portrait held still, which stands before the first clip."""
        assert conditioning.portrait_BCJhw is not None
        self.motion_BCTHW = motion_BCTHW
        self._vae, self._dtype = vae, DTYPES[recipe.deployment.compute_dtype]
        clip = recipe.clip
        self._drop, self._blocks, self._clips = (
            clip.quirks.first_frames_dropped,
            clip.blocks_per_clip,
            conditioning.num_clip,
        )
        self._recent = conditioning.portrait_BCJhw.expand(-1, -1, clip.quirks.motion_frames, -1, -1)
        self._made: list[Tensor] = []

    def pieces(self, block: LatentBlock) -> Iterator[Tensor]:
        """Frames of each latent frame in turn."""
        if block.index == 0:
            self._decoder = StreamingDecoder(self._vae)
            exhaust(self._decoder.frames(self.motion_BCTHW[:, :, -DECODER_REACH_LATENTS:], self._dtype))
        for piece_BCJhw in self._decoder.frames(block.latents_BCTHW, self._dtype):
            kept = piece_BCJhw[:, :, self._drop :].clamp(-1, 1)
            self._drop = max(0, self._drop - piece_BCJhw.shape[2])
            self._made.append(kept)
            yield kept
        if block.index == self._blocks - 1 and block.clip < self._clips - 1:
            self._encode_again()

    def _encode_again(self) -> None:
        frames = self._recent.shape[2]
        self._recent = torch.cat([self._recent, *self._made], dim=2)[:, :, -frames:]
        self._made.clear()
        self.motion_BCTHW = encode_video(self._vae, self._recent)


def exhaust(frames: Iterator[Tensor]) -> None:
    """Decode for the cache's sake alone."""
    for _ in frames:
        pass


def open_decoder(system: System, conditioning: Conditioning, motion_BCTHW: Tensor) -> FrameDecoder | None:
    """The decoder that the recipe asks for; None on a rank that does not decode."""
    if not system.world.decodes:
        return None
    if system.recipe.clip.quirks.streaming_decode:
        return StreamDecoder(system.vae, system.recipe, motion_BCTHW)
    return ClipwiseDecoder(system.vae, system.recipe, conditioning, motion_BCTHW)


def decode(decoder: FrameDecoder | None, blocks: Iterable[LatentBlock], memory: Memory) -> Iterator[FrameBlock]:
    """Phase decode: frames of each block as it comes; none without a decoder."""
    for block in blocks:
        frames = None
        if decoder is not None:
            with scopes.phase("decode"):
                frames = _pixels(decoder.pieces(block), memory)
        yield FrameBlock(clip=block.clip, index=block.index, frames_JHWC=frames)


def _pixels(pieces: Iterator[Tensor], memory: Memory) -> Tensor:
    """uint8 JHWC in host memory."""
    made = []
    for piece_BCJhw in pieces:
        levels = ((piece_BCJhw.float() + 1) / 2 * 255).to(torch.uint8)
        made.append(memory.move(levels[0].permute(1, 2, 3, 0), "host"))
    with scopes.place("host"):
        return torch.cat(made)
