"""Portrait, voice and prompt to a stream of frames: encode, prefill, denoise, decode.

Legend: B batch (1), C channels, T latent frames, H W latent height and width, A audio layers, E audio width,
J video frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.config import (
    FRAMES_PER_BLOCK,
    LATENT_FRAMES_PER_BLOCK,
    VIDEO_FRAMES_PER_LATENT,
    ClipSpec,
    Recipe,
)
from liveavatar_core.deploy.collectives import released_after
from liveavatar_core.deploy.memory import Memory
from liveavatar_core.deploy.system import System, Weights, load_system, seeded_weights
from liveavatar_core.deploy.ulysses import Ulysses
from liveavatar_core.deploy.world import World, join_world
from liveavatar_core.encoders.audio import encode_audio
from liveavatar_core.encoders.text import ByteTokenizer, Tokenizer, Tokens, encode_text
from liveavatar_core.encoders.vae import PIXELS_PER_LATENT, StreamingDecoder, encode_video
from liveavatar_core.model.cache import HostKVCache, KVCache
from liveavatar_core.model.sequence import SequenceLayout, WholeSequence
from liveavatar_core.model.state import ConditionState
from liveavatar_core.model.transformer import Prefill
from liveavatar_core.sampling import denoise_block, schedule
from liveavatar_core.sizing import fit_portrait, num_clips_in, output_size

WARM_UP_LATENTS = 7
"""Motion latents that the streaming decoder sees before the video, as in the original's timestep pipeline."""


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
    """Inputs as the transformer and the decoder take them; on the card."""

    context_BLD: Tensor | None
    """Encoded prompt, zero beyond its end; None on a decode rank."""
    audio_BAEJ: Tensor | None
    """Audio features of every video frame of whole clips; None on a decode rank."""
    reference_BCTHW: Tensor
    """Latent of the portrait, one frame."""
    motion_BCTHW: Tensor
    """Latents of the portrait held still before the video."""
    num_clip: int
    """Clips to make: what was asked for, or what the voice lasts for."""

    @property
    def latent_size(self) -> tuple[int, int]:
        """Latent height and width."""
        height, width = self.reference_BCTHW.shape[-2:]
        return height, width


@dataclass(frozen=True, kw_only=True)
class LatentBlock:
    """A denoised block."""

    clip: int
    """Its clip, from 0."""
    index: int
    """Its place in the clip, from 0."""
    latents_BCTHW: Tensor
    """Clean latents, float32."""


@dataclass(frozen=True, kw_only=True)
class FrameBlock:
    """What one block came to."""

    clip: int
    """Its clip, from 0."""
    index: int
    """Its place in the clip, from 0."""
    frames_JHWC: Tensor | None
    """uint8, red green blue, in host memory; None on a rank that does not decode."""


@dataclass(frozen=True, kw_only=True)
class Avatar:
    """A loaded model of one rank."""

    system: System
    """Its parts."""
    tokenizer: Tokenizer
    """Prompt to token ids."""

    @torch.no_grad()
    def generate(self, inputs: Inputs) -> Iterator[FrameBlock]:
        """The video, block by block; with enable_online_decode as soon as each block is denoised."""
        conditioning = encode(self.system, self.tokenizer, inputs)
        latents: Iterable[LatentBlock] = denoise(self.system, conditioning)
        if not self.system.recipe.clip.enable_online_decode:
            latents = list(latents)
        yield from decode(self.system, conditioning, latents)


@contextmanager
def open_avatar(
    recipe: Recipe,
    *,
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[Avatar]:
    """Load what this rank holds of a recipe.

    weights: a source for each part; seeded random values if None. device: the card.
    Several ranks need torch.distributed to be initialised. Raises OutOfMemory where a card is too small.
    """
    world = join_world(recipe.deployment, Memory(card=torch.device(device)))
    yield load_avatar(recipe, world, weights or seeded_weights(recipe), tokenizer)


def load_avatar(recipe: Recipe, world: World, weights: Weights, tokenizer: Tokenizer | None = None) -> Avatar:
    """Load what a rank of `world` holds."""
    return Avatar(system=load_system(recipe, world, weights), tokenizer=tokenizer or byte_tokenizer(recipe))


def byte_tokenizer(recipe: Recipe) -> ByteTokenizer:
    """The tokenizer of models without a published vocabulary."""
    return ByteTokenizer(recipe.model.text_encoder.vocab_size, recipe.model.transformer.text_len)


def encode(system: System, tokenizer: Tokenizer, inputs: Inputs) -> Conditioning:
    """Phase encode: prompt and voice where the transformer is, the portrait where the decoder is."""
    clip, world = system.recipe.clip, system.world
    with scopes.phase("encode"):
        context = _encode_prompt(system, tokenizer(inputs.prompt)) if world.computes_transformer else None
        audio = _encode_voice(system, inputs.waveform) if world.computes_transformer else None
        reference, motion = _portrait_latents(system, inputs.image)
    return Conditioning(
        context_BLD=context,
        audio_BAEJ=audio,
        reference_BCTHW=reference,
        motion_BCTHW=motion,
        num_clip=min(clip.num_clip, num_clips_in(len(inputs.waveform), clip.infer_frames)),
    )


def _encode_prompt(system: System, tokens: Tokens) -> Tensor:
    memory, place = system.world.memory, "host" if system.recipe.deployment.t5_cpu else "card"
    with system.on_card("text_encoder") as encoder, scopes.place(place):
        context = encode_text(encoder, tokens, memory.device(place))
    return memory.move(context, "card") if place == "host" else context


def _encode_voice(system: System, waveform: np.ndarray) -> Tensor:
    with system.on_card("audio_encoder") as encoder:
        waveform_S = system.world.memory.move(torch.from_numpy(waveform), "card")
        return encode_audio(encoder, waveform_S, system.recipe.clip.infer_frames, system.compute_dtype)


def _portrait_latents(system: System, image: Image.Image) -> tuple[Tensor, Tensor]:
    """Latents of the portrait, and of the portrait held still; from the decode rank, if there is one."""
    clip, world = system.recipe.clip, system.world
    height, width = output_size(image.height, image.width, clip.max_area)
    if world.decodes:
        fitted = fit_portrait(image, height, width, letterbox=clip.quirks.letterbox)
        latents = _encode_portrait(system, fitted)
    else:
        frames = 1 + (clip.quirks.motion_frames - 1) // VIDEO_FRAMES_PER_LATENT
        channels, size = (
            system.recipe.model.vae.z_dim,
            (height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT),
        )
        empty = [torch.empty(1, channels, n, *size, device=world.memory.card) for n in (1, frames)]
        latents = empty[0], empty[1]
    if world.role != "whole":
        for latent in latents:
            with released_after(latent):
                dist.broadcast(latent, src=world.decode_rank)
    return latents


def _encode_portrait(system: System, image: Image.Image) -> tuple[Tensor, Tensor]:
    quirks = system.recipe.clip.quirks
    pixels_HWC = system.world.memory.move(torch.from_numpy(np.array(image)), "card")
    frame_BCTHW = (pixels_HWC.permute(2, 0, 1).float() / 255 * 2 - 1)[None, :, None].to(system.compute_dtype)
    still = [frame_BCTHW.expand(-1, -1, n, -1, -1) for n in (quirks.reference_frames, quirks.motion_frames)]
    reference, motion = (encode_video(system.vae, video) for video in still)
    return reference[:, :, -1:].contiguous(), motion


def denoise(system: System, conditioning: Conditioning) -> Iterator[LatentBlock]:
    """Phases prefill and denoise: latents block by block; the decode rank gets them from rank 0."""
    if not system.world.computes_transformer:
        yield from _received(system, conditioning)
        return
    for block in _denoised(system, conditioning):
        if system.world.role == "transformer" and system.world.rank == 0:
            with released_after(block.latents_BCTHW):
                dist.send(block.latents_BCTHW, dst=system.world.decode_rank)
        yield block


def _received(system: System, conditioning: Conditioning) -> Iterator[LatentBlock]:
    shape = (1, system.recipe.model.vae.z_dim, LATENT_FRAMES_PER_BLOCK, *conditioning.latent_size)
    for clip, index in _places(system.recipe.clip, conditioning):
        with scopes.phase("denoise"):
            latents = torch.empty(shape, device=system.world.memory.card)
            with released_after(latents):
                dist.recv(latents, src=0)
        yield LatentBlock(clip=clip, index=index, latents_BCTHW=latents)


def _denoised(system: System, conditioning: Conditioning) -> Iterator[LatentBlock]:
    clip = system.recipe.clip
    state, caches = prefill(system, conditioning)
    for number in range(conditioning.num_clip):
        noise = _noise(system, conditioning, number)
        for index in range(clip.blocks_per_clip):
            latents = _denoise_one(system, conditioning, state, caches, noise, number, index)
            if number == 0 and index == 0 and conditioning.num_clip > 1:
                reference = latents[:, :, :1]
            yield LatentBlock(clip=number, index=index, latents_BCTHW=latents)
        if number == 0 and conditioning.num_clip > 1:
            _renew(system, conditioning, state, reference)


def _denoise_one(
    system: System,
    conditioning: Conditioning,
    state: ConditionState,
    caches: list[KVCache],
    noise_BCTHW: Tensor,
    number: int,
    index: int,
) -> Tensor:
    clip, start = system.recipe.clip, LATENT_FRAMES_PER_BLOCK * index
    video_frame = number * clip.infer_frames + index * FRAMES_PER_BLOCK
    assert conditioning.audio_BAEJ is not None
    with scopes.phase("denoise"):
        return denoise_block(
            system.transformer,
            state,
            caches,
            conditioning.audio_BAEJ[..., video_frame : video_frame + FRAMES_PER_BLOCK],
            noise_BCTHW[:, :, start : start + LATENT_FRAMES_PER_BLOCK],
            number * clip.latent_frames_per_clip + start,
        )


def _places(clip: ClipSpec, conditioning: Conditioning) -> Iterator[tuple[int, int]]:
    """Clip and place in it of every block."""
    return ((number, index) for number in range(conditioning.num_clip) for index in range(clip.blocks_per_clip))


def prefill(system: System, conditioning: Conditioning) -> tuple[ConditionState, list[KVCache]]:
    """Phase prefill: what every block attends to, and an empty cache for each noise level."""
    recipe, world = system.recipe, system.world
    sequence = _sequence(system)
    with scopes.phase("prefill"):
        if recipe.deployment.offload_model:
            world.memory.move_module(system.transformer, "card")
        with scopes.category("kv_cache"):
            request = Prefill(
                reference_BCFHW=conditioning.reference_BCTHW,
                motion_BCFHW=conditioning.motion_BCTHW,
                text_BKE=conditioning.context_BLD,
                timesteps=schedule(recipe.clip.sample_steps).timesteps,
                relative_dist=recipe.clip.quirks.relative_dist,
                float16_rotary_tables=recipe.clip.quirks.float16_rotary_tables,
                sequence=sequence,
            )
        state = system.transformer(request)
        return state, [_cache(system, sequence, conditioning) for _ in range(recipe.clip.sample_steps)]


def _renew(system: System, conditioning: Conditioning, state: ConditionState, reference: Tensor) -> None:
    """From the second clip on, the first frame made stands in for the portrait."""
    with scopes.phase("prefill"):
        system.transformer(Prefill(reference_BCFHW=reference, motion_BCFHW=conditioning.motion_BCTHW, state=state))


def _sequence(system: System) -> SequenceLayout:
    mesh = system.world.transformer_ranks
    if system.recipe.deployment.ulysses_size == 1 or mesh is None:
        return WholeSequence()
    return Ulysses(mesh.get_group())


def _cache(system: System, sequence: SequenceLayout, conditioning: Conditioning) -> KVCache:
    recipe, (height, width) = system.recipe, conditioning.latent_size
    params = recipe.model.transformer
    kind = HostKVCache if recipe.deployment.offload_kv_cache else KVCache
    return kind.allocate(
        params,
        batch=1,
        tokens=recipe.clip.latent_frames_per_clip * (height // 2) * (width // 2),
        heads=sequence.heads(params.num_heads),
        dtype=system.compute_dtype,
        device=system.world.memory.card,
    )


def _noise(system: System, conditioning: Conditioning, number: int) -> Tensor:
    """Noise of one clip, float32; drawn in host memory, so that a seed means the same on every card."""
    clip, memory = system.recipe.clip, system.world.memory
    shape = (1, system.recipe.model.vae.z_dim, clip.latent_frames_per_clip, *conditioning.latent_size)
    generator = torch.Generator().manual_seed(clip.base_seed + number)
    with scopes.phase("denoise"):
        with scopes.place("host"):
            noise = torch.randn(shape, generator=generator)
        return memory.move(noise, "card")


def decode(system: System, conditioning: Conditioning, blocks: Iterable[LatentBlock]) -> Iterator[FrameBlock]:
    """Phase decode: frames of each block as it comes."""
    decoder = StreamingDecoder(system.vae) if system.world.decodes else None
    if decoder is not None:
        with scopes.phase("decode"):
            for _ in decoder.frames(conditioning.motion_BCTHW[:, :, :WARM_UP_LATENTS], system.compute_dtype):
                pass
    drop = system.recipe.clip.quirks.first_frames_dropped
    for block in blocks:
        frames = None
        if decoder is not None:
            with scopes.phase("decode"):
                frames = _pixels(system, decoder, block.latents_BCTHW)[drop:]
            drop = 0
        yield FrameBlock(clip=block.clip, index=block.index, frames_JHWC=frames)


def _pixels(system: System, decoder: StreamingDecoder, latents_BCTHW: Tensor) -> Tensor:
    """uint8 JHWC in host memory."""
    pieces = []
    for piece_BCTHW in decoder.frames(latents_BCTHW, system.compute_dtype):
        levels = ((piece_BCTHW.float().clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)
        pieces.append(system.world.memory.move(levels[0].permute(1, 2, 3, 0), "host"))
    with scopes.place("host"):
        return torch.cat(pieces)
