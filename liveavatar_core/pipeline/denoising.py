"""Noise to clean latents, block by block: every step on this rank, or one step of a timestep pipeline.

Legend: B batch (1), C channels, T latent frames, H W latent height and width, A audio layers, E audio width,
J video frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.config import (
    FRAMES_PER_BLOCK,
    LATENT_FRAMES_PER_BLOCK,
    VIDEO_FRAMES_PER_LATENT,
    ClipSpec,
    Recipe,
)
from liveavatar_core.model.state import BlockContext
from liveavatar_core.model.transformer import LiveAvatarTransformer
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.system import System
from liveavatar_core.parallel.timestep import TimestepPipe, latents_rank, receive, send
from liveavatar_core.parallel.world import World
from liveavatar_core.pipeline.prefilling import prefill, renew
from liveavatar_core.pipeline.types import Conditioning, LatentBlock, NoiseSource
from liveavatar_core.sampling import denoise_block, denoise_step


class Denoiser(Protocol):
    """Gives the latents of one video, clip after clip."""

    def clip(self, number: int, motion_BCTHW: Tensor) -> Iterator[LatentBlock]:
        """Phases prefill and denoise: the blocks of a clip, in order; exhaust it before the next clip.

        motion_BCTHW: latents of the frames before it.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class BlockSource:
    """What every block of a video starts from, brought to the card as it is asked for."""

    spec: ClipSpec
    """What is made."""
    channels: int
    """Channels of latents."""
    conditioning: Conditioning
    """Audio features, and the size of latents."""
    memory: Memory
    """The memories of this rank."""
    noise: NoiseSource
    """The noise that each clip starts from."""

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape BCTHW of a block's latents; the last block of a clip may be shorter."""
        left = self.spec.latent_frames_per_clip - LATENT_FRAMES_PER_BLOCK * index
        return 1, self.channels, min(left, LATENT_FRAMES_PER_BLOCK), *self.conditioning.latent_size

    def noise_of(self, number: int) -> Tensor:
        """Noise BCTHW of one clip on the card, float32."""
        shape = (1, self.channels, self.spec.latent_frames_per_clip, *self.conditioning.latent_size)
        with scopes.phase("denoise"):
            with scopes.place("host"):
                drawn = self.noise(number, shape)
            return self.memory.move(drawn, "card")

    def context(self, number: int, index: int) -> BlockContext:
        """Audio, brought to the card, and place of a block."""
        assert self.conditioning.audio_BAEJ is not None
        first = number * self.spec.infer_frames + index * FRAMES_PER_BLOCK
        last = min(first + FRAMES_PER_BLOCK, (number + 1) * self.spec.infer_frames)
        audio_BAET = self.memory.move(self.conditioning.audio_BAEJ[..., first:last], "card")
        return BlockContext(audio_BAET=audio_BAET, frame=first // VIDEO_FRAMES_PER_LATENT)


def open_denoiser(system: System, conditioning: Conditioning, noise: NoiseSource | None = None) -> Denoiser:
    """What gives this rank its latents: the transformer, a step of it, or the rank that ends blocks.

    noise: where clips start; by default what base_seed gives.
    """
    recipe, world = system.recipe, system.world
    source = BlockSource(
        spec=recipe.clip,
        channels=recipe.model.vae.z_dim,
        conditioning=conditioning,
        memory=world.memory,
        noise=noise or seeded_noise(recipe.clip),
    )
    if not world.computes_transformer:
        return LatentReceiver(source, latents_rank(recipe.deployment))
    if recipe.deployment.timestep_pipeline:
        return StepDenoiser(system.transformer, recipe, world, source)
    return BlockDenoiser(system.transformer, recipe, world, source)


def denoise(denoiser: Denoiser, num_clip: int, motion_BCTHW: Tensor) -> Iterator[LatentBlock]:
    """Every block of a video whose clips all follow the same motion, block by block."""
    for number in range(num_clip):
        yield from denoiser.clip(number, motion_BCTHW)


def seeded_noise(clip: ClipSpec) -> NoiseSource:
    """Normal noise of seed base_seed + clip; drawn in host memory, so that a seed means the same on every card."""

    def noise(number: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(clip.base_seed + number))

    return noise


class LatentReceiver:
    """The Denoiser of a rank that only decodes: blocks come from the rank that ends them."""

    def __init__(self, source: BlockSource, rank: int) -> None:
        self._source, self._rank = source, rank

    def clip(self, number: int, motion_BCTHW: Tensor) -> Iterator[LatentBlock]:
        """The blocks of a clip, as they arrive."""
        for index in range(self._source.spec.blocks_per_clip):
            with scopes.phase("denoise"):
                self._latents = receive(self._source.shape(index), self._rank, self._source.memory)
            yield LatentBlock(clip=number, index=index, latents_BCTHW=self._latents)


class BlockDenoiser:
    """The Denoiser of a rank that computes every step; sends blocks on where another rank decodes."""

    _reference: Tensor
    """What clips from the second on have in place of the portrait."""

    def __init__(self, transformer: LiveAvatarTransformer, recipe: Recipe, world: World, source: BlockSource) -> None:
        self._transformer, self._recipe, self._world, self._source = transformer, recipe, world, source
        self._sends = world.role == "transformer" and world.rank == latents_rank(recipe.deployment)
        self._renews = source.conditioning.num_clip > 1 and _renews(recipe.clip)

    def clip(self, number: int, motion_BCTHW: Tensor) -> Iterator[LatentBlock]:
        """The blocks of a clip, as they become clean."""
        if number == 0:
            self._state, self._caches = prefill(
                self._transformer, self._recipe, self._world, self._source.conditioning, motion_BCTHW
            )
        if number == 1 and self._renews:
            renew(self._transformer, self._state, self._reference, motion_BCTHW)
        self._noise_BCTHW = self._source.noise_of(number)
        for index in range(self._recipe.clip.blocks_per_clip):
            self._latents = self._denoise(number, index)
            if self._renews and number == 0 and index == 0:
                self._reference = self._latents[:, :, :1]
            if self._sends:
                send(self._latents, self._world.decode_rank)
            yield LatentBlock(clip=number, index=index, latents_BCTHW=self._latents)

    def _denoise(self, number: int, index: int) -> Tensor:
        with scopes.phase("denoise"):
            context = self._source.context(number, index)
            noise = _block_of(self._noise_BCTHW, index)
            return denoise_block(self._transformer, self._state, self._caches, context.audio_BAET, noise, context.frame)


def _renews(clip: ClipSpec) -> bool:
    """Whether a second prefill comes before the second clip; the original's single-card pipeline has it online only."""
    return clip.quirks.streaming_decode or clip.enable_online_decode


class StepDenoiser:
    """The Denoiser of a rank of a timestep pipeline: one step of every block."""

    _reference: Tensor
    """What clips from the second on have in place of the portrait."""

    def __init__(self, transformer: LiveAvatarTransformer, recipe: Recipe, world: World, source: BlockSource) -> None:
        self._transformer, self._recipe, self._world, self._source = transformer, recipe, world, source
        self._pipe = TimestepPipe.of(world, recipe.deployment)

    def clip(self, number: int, motion_BCTHW: Tensor) -> Iterator[LatentBlock]:
        """The blocks of a clip, as they leave this rank."""
        if number == 0:
            self._state, (self._cache,) = prefill(
                self._transformer, self._recipe, self._world, self._source.conditioning, motion_BCTHW
            )
        if number == 1:
            renew(self._transformer, self._state, self._reference, motion_BCTHW)
        self._noise_BCTHW = self._source.noise_of(number) if self._pipe.is_first else None
        for index in range(self._recipe.clip.blocks_per_clip):
            with scopes.phase("denoise"):
                self._latents = self._step(number, index)
            yield LatentBlock(clip=number, index=index, latents_BCTHW=self._latents)

    def _step(self, number: int, index: int) -> Tensor:
        context = self._source.context(number, index)
        if self._noise_BCTHW is not None:
            latents = _block_of(self._noise_BCTHW, index)
        else:
            latents = self._pipe.receive(self._source.shape(index))
        latents = denoise_step(self._transformer, self._state, self._cache, context, latents, self._pipe.step)
        self._pipe.pass_on(latents)
        if number == 0 and self._source.conditioning.num_clip > 1:
            self._keep_reference(index, latents)
        return latents

    def _keep_reference(self, index: int, latents_BCTHW: Tensor) -> None:
        """The first clean frame, for the second prefill: told once the others have sent all that comes before it."""
        if index == 0:
            self._reference = latents_BCTHW[:, :, :1].contiguous()
        if index == self._recipe.clip.blocks_per_clip - 1:
            self._reference = self._pipe.share_from_last(self._reference)


def _block_of(noise_BCTHW: Tensor, index: int) -> Tensor:
    start = LATENT_FRAMES_PER_BLOCK * index
    return noise_BCTHW[:, :, start : start + LATENT_FRAMES_PER_BLOCK]
