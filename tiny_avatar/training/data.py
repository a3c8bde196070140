"""What the transformer learns from: drawn videos as latents, their sounds as features, prompts as contexts.

Legend: V videos, B batch, C latent channels, T latent frames, H W latent height and width, A audio layers,
E audio width, J video frames, L text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from liveavatar_core.config import FRAMES_PER_BLOCK, FRAMES_PER_SECOND
from liveavatar_core.encoders.audio import AudioEncoder
from liveavatar_core.encoders.text import TextEncoder
from tiny_avatar.heads import LIGHTS, MOODS, Face, Motion, draw
from tiny_avatar.prompts import prompt
from tiny_avatar.training.encoders import audio_features, tokenizer
from tiny_avatar.training.vae import to_pixels
from tiny_avatar.voices import mouth, sound

BLOCKS = 5
FRAMES = BLOCKS * FRAMES_PER_BLOCK
STILL_FRAMES = 13
"""Frames of the portrait before the video; what they encode to has settled by then."""
STILL_LATENTS = 1 + STILL_FRAMES // 4
MOTION_LATENTS = 19
_NOD, _NOD_LAG = 0.03, 0.8
"""How far a head nods to its voice, and how slowly."""
_SWAY, _SWAY_LAG = 0.03, 0.93
"""How far it leans over while it speaks, and how slowly."""
_CONTEXTS = 40
"""Prompts for each mood and light."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """A drawn video, and all that it follows from."""

    frames_JHWC: np.ndarray
    """The frames, uint8, FRAMES of them."""
    portrait_HWC: np.ndarray
    """The face at rest in white light, uint8."""
    wave_S: np.ndarray
    """The sound, float32 at 16 kHz."""
    face: Face
    """The person that it shows."""
    mood: int
    """Index into heads.MOODS."""
    light: int
    """Index into heads.LIGHTS."""


def drawn_video(random: np.random.Generator, frames: int = FRAMES) -> Video:
    """Chance face, sound, mood and light; the head starts where the portrait has it."""
    face, wave = Face.drawn_by(random), sound(random, frames / FRAMES_PER_SECOND)
    mood = int(random.choice(len(MOODS), p=[0.4, 0.3, 0.3]))
    light = int(random.choice(len(LIGHTS), p=[0.52, 0.12, 0.12, 0.12, 0.12]))
    motion = motion_to(face, wave, [*MOODS.values()][mood], [*LIGHTS][light])
    return Video(
        frames_JHWC=draw(face, motion),
        portrait_HWC=draw(face, Motion.still(1))[0],
        wave_S=wave,
        face=face,
        mood=mood,
        light=light,
    )


def motion_to(face: Face, wave_S: np.ndarray, mood: float, light: str) -> Motion:
    """How a face moves to a sound: the mouth at once, the head nods behind and leans over to the picture's middle.

    Nothing is left to chance, so that what a video shows follows from portrait, sound and prompt.
    """
    opening, width = mouth(wave_S)
    side = -1.0 if face.middle[0] > 0 else 1.0
    return Motion(
        opening=opening,
        width=width,
        sway=side * _SWAY * _behind(opening, _SWAY_LAG),
        nod=_NOD * _behind(opening, _NOD_LAG),
        mood=mood,
        light=LIGHTS[light],
    )


def _behind(values_J: np.ndarray, lag: float) -> np.ndarray:
    """An average of what was, the more of it the nearer to 1 `lag` is."""
    slow = np.zeros(len(values_J))
    for frame in range(1, len(values_J)):
        slow[frame] = lag * slow[frame - 1] + (1 - lag) * values_J[frame]
    return slow


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Many videos, encoded."""

    latents_VCTHW: Tensor
    """STILL_LATENTS of the portrait, then those of the video; scaled, float32."""
    features_VAEJ: Tensor
    """Features of the sound, one column a video frame."""
    moods_V: Tensor
    """Index of the mood."""
    lights_V: Tensor
    """Index of the light."""

    def __len__(self) -> int:
        return len(self.moods_V)


@torch.no_grad()
def encode_examples(vae: Any, audio: AudioEncoder, videos: Sequence[Video]) -> Examples:
    """Latents and features of drawn videos."""
    return Examples(
        latents_VCTHW=torch.cat([_latents(vae, video) for video in videos]),
        features_VAEJ=torch.stack([_features(audio, video) for video in videos]),
        moods_V=torch.tensor([video.mood for video in videos]),
        lights_V=torch.tensor([video.light for video in videos]),
    )


def _latents(vae: Any, video: Video) -> Tensor:
    still = np.repeat(video.portrait_HWC[None], STILL_FRAMES, axis=0)
    mean = vae.encode(to_pixels(np.concatenate([still, video.frames_JHWC])[None])).latent_dist.mean
    shape = (1, -1, 1, 1, 1)
    return (mean - torch.tensor(vae.config.latents_mean).view(shape)) / torch.tensor(vae.config.latents_std).view(shape)


def _features(audio: AudioEncoder, video: Video) -> Tensor:
    features = audio_features(audio, torch.from_numpy(video.wave_S))[..., :FRAMES]
    assert features.shape[-1] == FRAMES
    return features


def build_examples(folder: Path, vae: Any, audio: AudioEncoder, count: int, part: int = 0) -> Path:
    """Draw and encode `count` videos into a file of `folder`, in pieces that are kept; returns the file."""
    path = folder / f"examples-{part}.pt"
    if path.exists():
        return path
    random = np.random.default_rng((7, part))
    examples = encode_examples(vae, audio, [drawn_video(random) for _ in range(count)])
    partial = path.with_suffix(".part")
    torch.save(vars(examples), partial)
    partial.rename(path)
    return path


def read_examples(paths: Sequence[Path]) -> Examples:
    """All examples of some files."""
    parts = [torch.load(path, weights_only=True) for path in paths]
    return Examples(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


@torch.no_grad()
def contexts(encoder: TextEncoder) -> Tensor:
    """Encoded prompts [moods, lights, _CONTEXTS, L, D], padding zero."""
    random, read = np.random.default_rng(8), tokenizer()
    table = []
    for mood in MOODS:
        for light in LIGHTS:
            tokens = [read(prompt(random, mood, light)) for _ in range(_CONTEXTS)]
            ids, masks = (torch.cat([getattr(t, name) for t in tokens]) for name in ("ids_BL", "mask_BL"))
            table.append(encoder(ids, masks))
    return torch.stack(table).unflatten(0, (len(MOODS), len(LIGHTS)))
