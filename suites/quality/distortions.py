"""A drawn talking head, and every distortion that a metric is for: which metric sees which.

python -m suites.quality.distortions
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from liveavatar_core.media import read_audio
from liveavatar_core.shipped_files import ASSETS
from suites.harness.probes.video.lip_sync import Sound
from suites.harness.probes.video.measured_video import MeasuredVideo
from suites.harness.probes.video.quality import Quality, quality_of
from suites.harness.probes.video.sketch import Pixels
from suites.harness.report.generated_blocks import replaced
from suites.harness.verdicts.metrics import metric_kind
from tiny_avatar.heads import Face, Motion, draw
from tiny_avatar.voices import SAMPLES_PER_FRAME, mouth

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
NAME = "distortion-table"
CLIP_FRAMES, CLIPS = 48, 3
FRAMES = CLIP_FRAMES * CLIPS
LATENT_FRAMES = 4


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """One way to spoil a video, and what must see it."""

    name: str
    """The column's title in the table."""
    spoil: Callable[[MeasuredVideo], MeasuredVideo]
    """The video, spoiled; frames are an array."""
    seen_by: frozenset[str]
    """Metrics that react. All others must not."""


def clean_video(face: int = 0) -> MeasuredVideo:
    """Three clips of a drawn head that says what assets/voice.wav says. `face`: seed of the face and its sway."""
    random = np.random.default_rng(face)
    voice = read_audio(ASSETS / "voice.wav")[: FRAMES * SAMPLES_PER_FRAME]
    return MeasuredVideo(frames=draw(Face.drawn_by(random), _motion(voice, random)), sound=voice, nan_blocks=0)


def _motion(voice: Sound, random: np.random.Generator) -> Motion:
    opening, width = mouth(voice)
    seconds = np.arange(FRAMES) / 25
    sway, nod = (0.012 * np.sin(2 * np.pi * seconds / period + random.uniform(0, 6)) for period in (3.1, 1.9))
    return Motion(opening=opening, width=width, sway=sway, nod=nod)


def pixels(video: MeasuredVideo) -> Pixels:
    """The video's frames, which are an array."""
    assert isinstance(video.frames, np.ndarray)
    return video.frames


def blurred(video: MeasuredVideo) -> MeasuredVideo:
    """Every frame out of focus."""
    return replace(video, frames=np.stack([_blur(frame, 0.7) for frame in pixels(video)]))


def blurring(video: MeasuredVideo) -> MeasuredVideo:
    """A little more out of focus with every clip."""
    frames = [_blur(frame, 0.35 * (at // CLIP_FRAMES)) for at, frame in enumerate(pixels(video))]
    return replace(video, frames=np.stack(frames))


def _blur(frame: Pixels, radius: float) -> Pixels:
    return np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius)))


def half_size(video: MeasuredVideo) -> MeasuredVideo:
    """Made with half the pixels a side, and enlarged."""

    def coarse(frame: Pixels) -> Pixels:
        picture = Image.fromarray(frame)
        small = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
        return np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC))

    return replace(video, frames=np.stack([coarse(frame) for frame in pixels(video)]))


def frozen(video: MeasuredVideo) -> MeasuredVideo:
    """Eight frames stand still."""
    frames = pixels(video).copy()
    frames[60:68] = frames[59]
    return replace(video, frames=frames)


def black(video: MeasuredVideo) -> MeasuredVideo:
    """Three frames are black, as a decoder makes them of values that are no numbers."""
    frames = pixels(video).copy()
    frames[70:73] = 0
    return replace(video, frames=frames)


def one_frame_late(video: MeasuredVideo) -> MeasuredVideo:
    """The picture lags behind the sound by a frame."""
    frames = pixels(video)
    return replace(video, frames=np.concatenate([frames[:1], frames[:-1]]))


def other_sound(video: MeasuredVideo) -> MeasuredVideo:
    """The second half of the voice, then the first."""
    assert video.sound is not None
    return replace(video, sound=np.roll(video.sound, len(video.sound) // 2))


def short_sound(video: MeasuredVideo) -> MeasuredVideo:
    """The sound ends a fifth of a second early."""
    assert video.sound is not None
    return replace(video, sound=video.sound[:-3200])


def colour_cast(video: MeasuredVideo) -> MeasuredVideo:
    """Redder with every clip, evenly, so that no meeting of clips shows it."""
    warmth = np.linspace(0, 12, FRAMES)[:, None, None, None] * np.array([1, 0, -1])
    return replace(video, frames=(pixels(video) + warmth).clip(0, 255).round().astype(np.uint8))


def wider_face(video: MeasuredVideo) -> MeasuredVideo:
    """The head grows wider, by a third in all. Columns are repeated whole and colours kept: it stays as sharp."""
    frames = pixels(video)
    stretches = np.linspace(1, 4 / 3, FRAMES)
    return replace(video, frames=np.stack([_wider(*each) for each in zip(frames, stretches, strict=True)]))


def _wider(frame: Pixels, stretch: float) -> Pixels:
    columns = np.arange(frame.shape[1]) + 0.5 - frame.shape[1] / 2
    wider = frame[:, (columns / stretch + frame.shape[1] / 2).astype(int)].astype(np.float32)
    same_colour = wider + (frame.mean(axis=(0, 1)) - wider.mean(axis=(0, 1)))
    return same_colour.clip(0, 255).round().astype(np.uint8)


def flicker(video: MeasuredVideo) -> MeasuredVideo:
    """Every other latent frame is brighter by 3 %."""
    brighter = (np.arange(FRAMES) // LATENT_FRAMES % 2)[:, None, None, None] * 0.03
    return replace(video, frames=(pixels(video) * (1 + brighter)).clip(0, 255).round().astype(np.uint8))


def clip_jump(video: MeasuredVideo) -> MeasuredVideo:
    """The head stands elsewhere for the length of the second clip."""
    frames = pixels(video).copy()
    second = slice(CLIP_FRAMES, 2 * CLIP_FRAMES)
    frames[second] = np.roll(frames[second], 3, axis=2)
    return replace(video, frames=frames)


def first_frame_jump(video: MeasuredVideo) -> MeasuredVideo:
    """The first latent frame is brighter than what follows."""
    frames = pixels(video).astype(np.float32)
    frames[:LATENT_FRAMES] += 15
    return replace(video, frames=frames.clip(0, 255).round().astype(np.uint8))


def nan_latents(video: MeasuredVideo) -> MeasuredVideo:
    """A block's latents hold a value that is no number."""
    return replace(video, nan_blocks=1)


def _damage(spoil: Callable[[MeasuredVideo], MeasuredVideo], name: str, *seen_by: str) -> Distortion:
    return Distortion(name=name, spoil=spoil, seen_by=frozenset(seen_by))


DISTORTIONS = (
    _damage(nan_latents, "a latent is no number", "nan_blocks_count"),
    _damage(black, "3 black frames", "black_frames_share"),
    _damage(frozen, "8 frozen frames", "frozen_frames_share"),
    _damage(first_frame_jump, "first latent frame too bright", "first_frame_jump_ratio"),
    _damage(clip_jump, "second clip stands elsewhere", "clip_jump_ratio"),
    _damage(flicker, "latent frames flicker by 3 %", "flicker_levels"),
    _damage(blurred, "blur of 0.7 pixels", "sharpness_ratio"),
    _damage(half_size, "half the resolution", "sharpness_ratio"),
    _damage(blurring, "more blur with every clip", "sharpness_ratio", "sharpness_loss_share_per_clip"),
    _damage(colour_cast, "redder with every clip", "colour_drift_levels_per_clip"),
    _damage(wider_face, "face grows wider", "identity_drift_per_clip"),
    _damage(one_frame_late, "picture one frame late", "lip_sync_lag_ms"),
    _damage(other_sound, "another sound", "lip_sync_strength", "lip_sync_lag_ms"),
    _damage(short_sound, "sound ends 0.2 s early", "picture_beyond_sound_ms"),
)


def measured(video: MeasuredVideo) -> Quality:
    """The metrics of a video without a reference."""
    return quality_of(video, clip_frames=CLIP_FRAMES)


def reactions(clean: Quality, spoiled: Quality) -> set[str]:
    """Metrics that moved by more than a baseline would let through, or that have no number any more."""
    moved = {name for name in clean.values if name not in spoiled.values}
    for name in clean.values.keys() & spoiled.values.keys():
        tolerance = metric_kind(name).default_tolerance("miniature")
        allowed = max(tolerance.rel * abs(clean.values[name]), tolerance.abs)
        if abs(spoiled.values[name] - clean.values[name]) > allowed:
            moved.add(name)
    return moved


def table(clean: Quality, spoiled: Mapping[str, Quality]) -> str:
    """A row a metric, a column a distortion; what reacts is in bold, what is as in the clean video is left out."""
    head = ["metric", "clean", *spoiled]
    rows = [head, ["---"] * len(head)]
    for name, value in clean.values.items():
        rows.append([f"`{name}`", _text(value), *(_cell(name, clean, each) for each in spoiled.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(name: str, clean: Quality, spoiled: Quality) -> str:
    if name not in reactions(clean, spoiled):
        return ""
    return f"**{_text(spoiled.values[name]) if name in spoiled.values else 'none'}**"


def _text(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def main() -> None:
    """Write the table into docs/metrics.md, or print it."""
    parser = argparse.ArgumentParser(description="Which metric sees which distortion.")
    parser.add_argument("--write", action="store_true", help="put it into docs/metrics.md")
    clean = clean_video()
    made = table(measured(clean), {each.name: measured(each.spoil(clean)) for each in DISTORTIONS})
    if parser.parse_args().write:
        PAGE.write_text(replaced(PAGE.read_text(), NAME, made))
    else:
        print(made)


if __name__ == "__main__":
    main()
