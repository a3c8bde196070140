"""Latents to frames, in one stream, or clip by clip as the original's single-card pipeline does it.

Legend: B batch (1), C channels, T latent frames, H W latent height and width, J video frames, h w pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.encoders.vae import StreamingDecoder, encode_video
from liveavatar_core.parallel.system import System
from liveavatar_core.pipeline.types import Conditioning, FrameBlock, LatentBlock

WARM_UP_LATENTS = 7
"""Motion latents that the streaming decoder sees before the video, as in the original's timestep pipeline."""


DECODER_REACH_LATENTS = 40
"""No frame depends on latents further back: by their kernels the decoder's causal convolutions reach 38."""


class FrameDecoder(Protocol):
    """Decodes the blocks of one video, in order."""

    def pieces(self, block: LatentBlock) -> Iterator[Tensor]:
        """Frames BCJhw of each latent frame in turn, clamped to -1..1; exhaust it before the next block."""
        ...


class StreamDecoder:
    """One causal cache from the first frame to the last, warmed up with the portrait."""

    def __init__(self, system: System, conditioning: Conditioning) -> None:
        self._decoder, self._dtype = StreamingDecoder(system.vae), system.compute_dtype
        self._drop = system.recipe.clip.quirks.first_frames_dropped
        with scopes.phase("decode"):
            exhaust(self._decoder.frames(conditioning.motion_BCTHW[:, :, :WARM_UP_LATENTS], self._dtype))

    def pieces(self, block: LatentBlock) -> Iterator[Tensor]:
        """Frames of each latent frame in turn."""
        for piece_BCJhw in self._decoder.frames(block.latents_BCTHW, self._dtype):
            kept = piece_BCJhw[:, :, self._drop :].clamp(-1, 1)
            self._drop = max(0, self._drop - piece_BCJhw.shape[2])
            yield kept


class ClipwiseDecoder:
    """A new cache for every clip, filled by decoding the latents of the frames before it.

    Behind each clip but the last, the last frames (as many as the motion has) are encoded again: they stand before
    the next one, in `conditioning.motion_BCTHW`.
    """

    def __init__(self, system: System, conditioning: Conditioning) -> None:
        assert conditioning.portrait_BCJhw is not None
        self._system, self._conditioning = system, conditioning
        clip = system.recipe.clip
        self._drop, self._blocks = clip.quirks.first_frames_dropped, clip.blocks_per_clip
        self._recent = conditioning.portrait_BCJhw.expand(-1, -1, clip.quirks.motion_frames, -1, -1)
        self._made: list[Tensor] = []

    def pieces(self, block: LatentBlock) -> Iterator[Tensor]:
        """Frames of each latent frame in turn."""
        if block.index == 0:
            self._decoder = StreamingDecoder(self._system.vae)
            before = self._conditioning.motion_BCTHW[:, :, -DECODER_REACH_LATENTS:]
            exhaust(self._decoder.frames(before, self._system.compute_dtype))
        for piece_BCJhw in self._decoder.frames(block.latents_BCTHW, self._system.compute_dtype):
            kept = piece_BCJhw[:, :, self._drop :].clamp(-1, 1)
            self._drop = max(0, self._drop - piece_BCJhw.shape[2])
            self._made.append(kept)
            yield kept
        if block.index == self._blocks - 1 and block.clip < self._conditioning.num_clip - 1:
            self._encode_again()

    def _encode_again(self) -> None:
        frames = self._recent.shape[2]
        self._recent = torch.cat([self._recent, *self._made], dim=2)[:, :, -frames:]
        self._made.clear()
        self._conditioning.motion_BCTHW = encode_video(self._system.vae, self._recent)


def exhaust(frames: Iterator[Tensor]) -> None:
    """Decode for the cache's sake alone."""
    for _ in frames:
        pass


def open_decoder(system: System, conditioning: Conditioning) -> FrameDecoder | None:
    """The decoder that the recipe asks for; None on a rank that does not decode."""
    if not system.world.decodes:
        return None
    kind = StreamDecoder if system.recipe.clip.quirks.streaming_decode else ClipwiseDecoder
    return kind(system, conditioning)


def decode(system: System, conditioning: Conditioning, blocks: Iterable[LatentBlock]) -> Iterator[FrameBlock]:
    """Phase decode: frames of each block as it comes."""
    decoder = open_decoder(system, conditioning)
    for block in blocks:
        frames = None
        if decoder is not None:
            with scopes.phase("decode"):
                frames = _pixels(system, decoder.pieces(block))
        yield FrameBlock(clip=block.clip, index=block.index, frames_JHWC=frames)


def _pixels(system: System, pieces: Iterator[Tensor]) -> Tensor:
    """uint8 JHWC in host memory."""
    made = []
    for piece_BCJhw in pieces:
        levels = ((piece_BCJhw.float() + 1) / 2 * 255).to(torch.uint8)
        made.append(system.world.memory.move(levels[0].permute(1, 2, 3, 0), "host"))
    with scopes.place("host"):
        return torch.cat(made)
