"""Noise to clean latents, block by block: every step on this rank, or one step of a timestep pipeline.

Legend: B batch (1), C channels, T latent frames, H W latent height and width, A audio layers, E audio width,
J video frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.config import (
    FRAMES_PER_BLOCK,
    LATENT_FRAMES_PER_BLOCK,
    VIDEO_FRAMES_PER_LATENT,
    ClipSpec,
)
from liveavatar_core.model.cache import Cache
from liveavatar_core.model.state import BlockContext, ConditionState
from liveavatar_core.parallel.system import System
from liveavatar_core.parallel.timestep import TimestepPipe, latents_rank, receive, send
from liveavatar_core.pipeline.prefilling import prefill, renew
from liveavatar_core.pipeline.types import Conditioning, LatentBlock, NoiseSource
from liveavatar_core.sampling import denoise_block, denoise_step


def denoise(system: System, conditioning: Conditioning, noise: NoiseSource | None = None) -> Iterator[LatentBlock]:
    """Phases prefill and denoise: latents block by block; the decode rank gets them from the rank that ends them.

    noise: where clips start; by default what base_seed gives.
    """
    source = noise or seeded_noise(system.recipe.clip)
    if not system.world.computes_transformer:
        yield from _received(system, conditioning)
    elif system.recipe.deployment.timestep_pipeline:
        yield from _Pipe(system, conditioning, source).blocks()
    else:
        for block in _denoised(system, conditioning, source):
            if system.world.role == "transformer" and system.world.rank == latents_rank(system.recipe.deployment):
                send(block.latents_BCTHW, system.world.decode_rank)
            yield block


def seeded_noise(clip: ClipSpec) -> NoiseSource:
    """Normal noise of seed base_seed + clip; drawn in host memory, so that a seed means the same on every card."""

    def noise(number: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(clip.base_seed + number))

    return noise


def _received(system: System, conditioning: Conditioning) -> Iterator[LatentBlock]:
    clip, rank = system.recipe.clip, latents_rank(system.recipe.deployment)
    for number in range(conditioning.num_clip):
        for index in range(clip.blocks_per_clip):
            with scopes.phase("denoise"):
                latents = receive(_shape(system, conditioning, index), rank, system.world.memory)
            yield LatentBlock(clip=number, index=index, latents_BCTHW=latents)


def _denoised(system: System, conditioning: Conditioning, noise: NoiseSource) -> Iterator[LatentBlock]:
    state, caches = prefill(system, conditioning)
    renews = conditioning.num_clip > 1 and _renews(system.recipe.clip)
    for number in range(conditioning.num_clip):
        noise_BCTHW = _noise(system, conditioning, number, noise)
        for index in range(system.recipe.clip.blocks_per_clip):
            latents = _denoise_one(system, conditioning, state, caches, noise_BCTHW, number, index)
            if renews and number == 0 and index == 0:
                reference = latents[:, :, :1]
            yield LatentBlock(clip=number, index=index, latents_BCTHW=latents)
        if renews and number == 0:
            renew(system, conditioning, state, reference)


def _renews(clip: ClipSpec) -> bool:
    """Whether a second prefill comes before the second clip; the original's single-card pipeline has it online only."""
    return clip.quirks.streaming_decode or clip.enable_online_decode


def _denoise_one(
    system: System,
    conditioning: Conditioning,
    state: ConditionState,
    caches: Sequence[Cache],
    noise_BCTHW: Tensor,
    number: int,
    index: int,
) -> Tensor:
    with scopes.phase("denoise"):
        context = _context(system, conditioning, number, index)
        noise = _block_of(noise_BCTHW, index)
        return denoise_block(system.transformer, state, caches, context.audio_BAET, noise, context.frame)


class _Pipe:
    """One step of every block, on one rank of a timestep pipeline."""

    def __init__(self, system: System, conditioning: Conditioning, noise: NoiseSource) -> None:
        self._system, self._conditioning, self._noise = system, conditioning, noise
        self._pipe = TimestepPipe.of(system.world, system.recipe.deployment)
        self._clip = system.recipe.clip

    def blocks(self) -> Iterator[LatentBlock]:
        """Every block as it leaves this rank."""
        self._state, (self._cache,) = prefill(self._system, self._conditioning)
        for number in range(self._conditioning.num_clip):
            if number == 1:
                renew(self._system, self._conditioning, self._state, self._reference)
            noise_BCTHW = self._noise_of(number)
            for index in range(self._clip.blocks_per_clip):
                with scopes.phase("denoise"):
                    latents = self._step(number, index, noise_BCTHW)
                yield LatentBlock(clip=number, index=index, latents_BCTHW=latents)

    def _noise_of(self, number: int) -> Tensor | None:
        return _noise(self._system, self._conditioning, number, self._noise) if self._pipe.is_first else None

    def _step(self, number: int, index: int, noise_BCTHW: Tensor | None) -> Tensor:
        context = _context(self._system, self._conditioning, number, index)
        if noise_BCTHW is not None:
            latents = _block_of(noise_BCTHW, index)
        else:
            latents = self._pipe.receive(_shape(self._system, self._conditioning, index))
        latents = denoise_step(self._system.transformer, self._state, self._cache, context, latents, self._pipe.step)
        self._pipe.pass_on(latents)
        if number == 0 and self._conditioning.num_clip > 1:
            self._keep_reference(index, latents)
        return latents

    def _keep_reference(self, index: int, latents_BCTHW: Tensor) -> None:
        """The first clean frame, for the second prefill: told once the others have sent all that comes before it."""
        if index == 0:
            self._reference = latents_BCTHW[:, :, :1].contiguous()
        if index == self._clip.blocks_per_clip - 1:
            self._reference = self._pipe.share_from_last(self._reference)


def _context(system: System, conditioning: Conditioning, number: int, index: int) -> BlockContext:
    """Audio, brought to the card, and place of a block."""
    assert conditioning.audio_BAEJ is not None
    clip = system.recipe.clip
    first = number * clip.infer_frames + index * FRAMES_PER_BLOCK
    last = min(first + FRAMES_PER_BLOCK, (number + 1) * clip.infer_frames)
    audio_BAET = system.world.memory.move(conditioning.audio_BAEJ[..., first:last], "card")
    return BlockContext(audio_BAET=audio_BAET, frame=first // VIDEO_FRAMES_PER_LATENT)


def _block_of(noise_BCTHW: Tensor, index: int) -> Tensor:
    start = LATENT_FRAMES_PER_BLOCK * index
    return noise_BCTHW[:, :, start : start + LATENT_FRAMES_PER_BLOCK]


def _shape(system: System, conditioning: Conditioning, index: int) -> tuple[int, ...]:
    """Of a block's latents; the last of a clip may be shorter."""
    left = system.recipe.clip.latent_frames_per_clip - LATENT_FRAMES_PER_BLOCK * index
    return 1, system.recipe.model.vae.z_dim, min(left, LATENT_FRAMES_PER_BLOCK), *conditioning.latent_size


def _noise(system: System, conditioning: Conditioning, number: int, noise: NoiseSource) -> Tensor:
    """Noise of one clip on the card, float32."""
    frames = system.recipe.clip.latent_frames_per_clip
    shape = (1, system.recipe.model.vae.z_dim, frames, *conditioning.latent_size)
    with scopes.phase("denoise"):
        with scopes.place("host"):
            drawn = noise(number, shape)
        return system.world.memory.move(drawn, "card")
