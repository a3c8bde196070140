"""A loaded model that makes videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from liveavatar_core.config import Recipe
from liveavatar_core.encoders.text import ByteTokenizer, Tokenizer
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.load import Weights, seeded_weights
from liveavatar_core.parallel.system import System, load_system
from liveavatar_core.parallel.world import World, join_world
from liveavatar_core.pipeline.conditioning import encode
from liveavatar_core.pipeline.decoding import decode, open_decoder
from liveavatar_core.pipeline.denoising import denoise, open_denoiser
from liveavatar_core.pipeline.types import FrameBlock, Inputs, LatentBlock, LatentWatch, NoiseSource


@dataclass(frozen=True, kw_only=True)
class Avatar:
    """A loaded model of one rank."""

    system: System
    """The parts of the model that this rank holds."""
    tokenizer: Tokenizer
    """Prompt to token ids."""

    @torch.no_grad()
    def generate(
        self,
        inputs: Inputs,
        noise: NoiseSource | None = None,
        watch: LatentWatch | None = None,
        clips: Callable[[int], Iterable[int]] = range,
    ) -> Iterator[FrameBlock]:
        """The video, block by block; with enable_online_decode as soon as each block is denoised.

        noise: where each clip starts; by default what base_seed gives. Every call makes a video of its own.
        watch: sees the latents of each block before they are decoded.
        clips: of a number of clips those that are made; a simulation leaves out what is like the ones before, where
        blocks are decoded as they come.
        """
        conditioning, motion = encode(self.system, self.tokenizer, inputs)
        memory, watch = self.system.world.memory, watch or _see_nothing
        if not self.system.recipe.clip.enable_online_decode:
            denoiser = open_denoiser(self.system, conditioning, noise)
            blocks = list(_watched(denoise(denoiser, conditioning.num_clip, motion), watch))
            del denoiser  # its caches make room for decoding
            decoder = open_decoder(self.system, conditioning, motion)
            del motion  # the decoder's own from here on
            yield from decode(decoder, blocks, memory)
            return
        decoder = open_decoder(self.system, conditioning, motion)
        denoiser = open_denoiser(self.system, conditioning, noise)
        for number in clips(conditioning.num_clip):
            yield from decode(decoder, _watched(denoiser.clip(number, motion), watch), memory)
            motion = motion if decoder is None else decoder.motion_BCTHW


def _see_nothing(block: LatentBlock) -> None:
    pass


def _watched(latents: Iterable[LatentBlock], watch: LatentWatch) -> Iterator[LatentBlock]:
    for block in latents:
        watch(block)
        yield block


def open_avatar(
    recipe: Recipe,
    *,
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    device: str | torch.device = "cpu",
) -> Avatar:
    """Load what this rank holds of a recipe.

    weights: a source for each part; seeded random values if None. device: the card.
    Several ranks need torch.distributed to be initialised. Raises OutOfMemory where a card is too small.
    """
    world = join_world(recipe.deployment, Memory(card=torch.device(device)))
    return load_avatar(recipe, world, weights or seeded_weights(recipe), tokenizer)


def load_avatar(recipe: Recipe, world: World, weights: Weights, tokenizer: Tokenizer | None = None) -> Avatar:
    """Load what a rank of `world` holds."""
    return Avatar(system=load_system(recipe, world, weights), tokenizer=tokenizer or byte_tokenizer(recipe))


def byte_tokenizer(recipe: Recipe) -> ByteTokenizer:
    """The tokenizer of models without a published vocabulary."""
    return ByteTokenizer(recipe.model.text_encoder.vocab_size, recipe.model.transformer.text_len)
