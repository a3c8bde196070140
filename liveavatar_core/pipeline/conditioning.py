"""Phase encode: prompt, voice and portrait to what the transformer and the decoder take.

Legend: B batch (1), C channels, T latent frames, H W latent height and width, L text tokens, D text width,
A audio layers, E audio width, S samples, J video frames, h w pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND, PIXELS_PER_LATENT, VIDEO_FRAMES_PER_LATENT
from liveavatar_core.encoders.audio import encode_audio
from liveavatar_core.encoders.text import Tokenizer, Tokens, encode_text
from liveavatar_core.encoders.vae import encode_video
from liveavatar_core.parallel.hooks import exchange
from liveavatar_core.parallel.system import System
from liveavatar_core.pipeline.audio_windows import encode_in_windows
from liveavatar_core.pipeline.types import Conditioning, Inputs
from liveavatar_core.video_geometry import fit_portrait, num_clips_in, output_size


def encode(system: System, tokenizer: Tokenizer, inputs: Inputs) -> tuple[Conditioning, Tensor]:
    """Phase encode: prompt and voice where the transformer is, the portrait where the decoder is.

    Returns the conditioning, and the latents BCTHW of the frames before the first clip: the portrait held still.
    """
    clip, world = system.recipe.clip, system.world
    num_clip = min(clip.num_clip, num_clips_in(len(inputs.waveform), clip.infer_frames))
    with scopes.phase("encode"):
        context = _prompt_context(system, tokenizer(inputs.prompt))
        audio = _encode_voice(system, inputs.waveform, num_clip) if world.computes_transformer else None
        reference, motion, portrait = _portrait_latents(system, inputs.image)
        if system.recipe.deployment.free_encoders:
            system.release("text_encoder", "audio_encoder")
    conditioning = Conditioning(
        context_BLD=context,
        audio_BAEJ=audio,
        reference_BCTHW=reference,
        portrait_BCJhw=None if clip.quirks.streaming_decode else portrait,
        num_clip=num_clip,
    )
    return conditioning, motion


def _prompt_context(system: System, tokens: Tokens) -> Tensor | None:
    """The encoded prompt where the transformer is; made there, or on the decode rank and sent."""
    world, recipe = system.world, system.recipe
    if not recipe.deployment.t5_on_decode_rank:
        return _encode_prompt(system, tokens) if world.computes_transformer else None
    if world.decodes:
        context = _encode_prompt(system, tokens)
    else:
        shape = (1, recipe.model.transformer.text_len, recipe.model.transformer.text_dim)
        context = torch.empty(shape, dtype=system.compute_dtype, device=world.memory.card)
    with exchange(context):
        dist.broadcast(context, src=world.decode_rank)
    return context if world.computes_transformer else None


def _encode_prompt(system: System, tokens: Tokens) -> Tensor:
    memory, place = system.world.memory, "host" if system.recipe.deployment.t5_cpu else "card"
    with system.on_card("text_encoder") as encoder, scopes.place(place):
        context = encode_text(encoder, tokens, memory.device(place))
    return memory.move(context, "card") if place == "host" else context


def _encode_voice(system: System, waveform: np.ndarray, num_clip: int) -> Tensor:
    """Features of the frames to make, in host memory, since they grow with the video.

    A voice that is no longer than a window is encoded whole, as the original does with any.
    """
    memory, frames = system.world.memory, system.recipe.clip.infer_frames
    window = system.recipe.deployment.audio_window_seconds
    with system.on_card("audio_encoder") as encoder:
        if 0 < window < len(waveform) / AUDIO_SAMPLES_PER_SECOND:
            return encode_in_windows(
                encoder, waveform, num_clip * frames, window_seconds=window, dtype=system.compute_dtype, memory=memory
            )
        waveform_S = memory.move(torch.from_numpy(waveform), "card")
        features_BAEJ = encode_audio(encoder, waveform_S, frames, system.compute_dtype)
    return memory.move(features_BAEJ[..., : num_clip * frames], "host")


def _portrait_latents(system: System, image: Image.Image) -> tuple[Tensor, Tensor, Tensor | None]:
    """Latents of the portrait, and of the portrait held still, from the decode rank if there is one; its pixels."""
    clip, world = system.recipe.clip, system.world
    height, width = output_size(image.height, image.width, clip.max_area)
    portrait = None
    if world.decodes:
        portrait = _pixels(system, fit_portrait(image, height, width, letterbox=clip.quirks.letterbox))
        latents = _encode_portrait(system, portrait)
    else:
        latents = _empty_latents(system, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
    if world.role != "whole":
        for latent in latents:
            with exchange(latent):
                dist.broadcast(latent, src=world.decode_rank)
    return *latents, portrait


def _pixels(system: System, image: Image.Image) -> Tensor:
    """BCJhw in -1..1, one frame."""
    pixels_hwC = system.world.memory.move(torch.from_numpy(np.array(image)), "card")
    return (pixels_hwC.permute(2, 0, 1).float() / 255 * 2 - 1)[None, :, None].to(system.compute_dtype)


def _encode_portrait(system: System, portrait_BCJhw: Tensor) -> tuple[Tensor, Tensor]:
    quirks = system.recipe.clip.quirks
    still = [portrait_BCJhw.expand(-1, -1, n, -1, -1) for n in (quirks.reference_frames, quirks.motion_frames)]
    reference, motion = (encode_video(system.vae, video) for video in still)
    return reference[:, :, -1:].contiguous(), motion


def _empty_latents(system: System, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where to receive the reference and the motion."""
    channels, card = system.recipe.model.vae.z_dim, system.world.memory.card
    motion = 1 + (system.recipe.clip.quirks.motion_frames - 1) // VIDEO_FRAMES_PER_LATENT
    reference = torch.empty(1, channels, 1, height, width, device=card)
    return reference, torch.empty(1, channels, motion, height, width, device=card)
