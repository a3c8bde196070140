"""Whether the mouth follows the voice, and how late: without a face model, from the frames and the sound alone.

The mouth is where the lower part of the picture changes fastest. How far it is open is the first principal component
of the brightness there, darker being wider open. Its correlation with the loudness of the sound, over shifts of half a
second, peaks at the lag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND, FRAMES_PER_SECOND
from suites.harness.probes.video.broken import black_N
from suites.harness.probes.video.errors import NotMeasured
from suites.harness.probes.video.sketch import Floats, Pixels, Sketch

MOST_LAG_FRAMES = 12
"""Shifts that are tried, in both directions."""
LEAST_FRAMES = 36
"""Fewer overlap too little when they are shifted."""
SWAY_FRAMES = 13
"""Frames of half a second: what is slower than this is the head's sway, or the sentence's melody."""
CHANCE = 4.2
"""Over the root of the frames: what the best of so many shifts correlates by where nothing belongs together."""
MOUTH = (0.45, 0.95, 0.2, 0.8)
"""The region in which a mouth is looked for: from and to as parts of the height, then of the width."""
MOUTH_SIZE = (0.14, 0.25)
"""Height and width of the region, as parts of the picture's."""
SILENT = 1e-4
"""Loudness (root mean square of samples in -1..1) that never exceeds this is no voice."""

Region = tuple[int, int, int, int]
"""Top, bottom, left, right in pixels of the small picture."""
Sound = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class LipSync:
    """How the mouth follows the voice."""

    lag_frames: float
    """By how many frames the picture comes late; less than 0: early. Parts of a frame: a parabola through the peak."""
    strength: float
    """The correlation at that lag, -1 to 1."""
    frames: int
    """The number of frames that were compared."""

    @property
    def lag_ms(self) -> float:
        """The lag in milliseconds. Raises NotMeasured where the peak may be chance."""
        chance = CHANCE / math.sqrt(self.frames)
        if self.strength < chance:
            raise NotMeasured(f"mouth and voice correlate by {self.strength:.2f}; by chance they may by {chance:.2f}")
        return self.lag_frames * 1000 / FRAMES_PER_SECOND


def lip_sync(video: Sketch, sound: Sound | None, region: Region | None = None) -> LipSync:
    """Lag and strength. `region`: where the mouth is, if it is known.

    Raises NotMeasured for silence, a video that is too short, or a mouth that never moves.
    """
    if sound is None:
        raise NotMeasured("the video has no sound")
    count = min(video.frames, len(sound) * FRAMES_PER_SECOND // AUDIO_SAMPLES_PER_SECOND)
    if count < LEAST_FRAMES:
        raise NotMeasured(f"{count} frames with sound; {LEAST_FRAMES} are the least")
    voice = _quick(loudness(sound, count)[:, None])[:, 0]
    mouth = opening(_shown(video)[:count], region)
    shifts = range(-MOST_LAG_FRAMES, MOST_LAG_FRAMES + 1)
    strengths = [_correlation(voice, mouth, shift) for shift in shifts]
    best = int(np.argmax(strengths))
    lag = shifts[best] + _beside(strengths, best)
    return LipSync(lag_frames=lag, strength=strengths[best], frames=count)


def _shown(video: Sketch) -> Pixels:
    """Small pictures, each black one replaced by what was shown last: black is no mouth wide open."""
    black = black_N(video)
    last = np.maximum.accumulate(np.where(black, 0, np.arange(video.frames)))
    return video.small_Nhw[last]


def loudness(sound: Sound, count: int) -> Floats:
    """Loudness in the 40 ms around the moment of each of `count` frames; a root of it, as ears are not linear."""
    size = AUDIO_SAMPLES_PER_SECOND // FRAMES_PER_SECOND
    around = np.pad(sound.astype(np.float64), (size // 2, 0))[: count * size]
    rms = np.sqrt((around.reshape(count, size) ** 2).mean(axis=1))
    if rms.max() < SILENT:
        raise NotMeasured("the sound is silent")
    return np.sqrt(rms)


def opening(small_Nhw: Pixels, region: Region | None = None) -> Floats:
    """How far the mouth is open in each frame; no unit, mean 0."""
    top, bottom, left, right = region or find_mouth(small_Nhw)
    moving_NP = _quick(small_Nhw[:, top:bottom, left:right].reshape(len(small_Nhw), -1))
    _, sizes, directions = np.linalg.svd(moving_NP, full_matrices=False)
    if not sizes[0]:
        raise NotMeasured("nothing moves where a mouth would be")
    wider = moving_NP @ directions[0]
    return wider if wider @ moving_NP.mean(axis=1) < 0 else -wider


def find_mouth(small_Nhw: Pixels) -> Region:
    """The region that changes fastest, in the lower part of the picture."""
    height, width = small_Nhw.shape[1:]
    top, left = int(MOUTH[0] * height), int(MOUTH[2] * width)
    lower = small_Nhw[:, top : int(MOUTH[1] * height), left : int(MOUTH[3] * width)]
    energy = (_quick(lower.reshape(len(lower), -1)) ** 2).mean(axis=0).reshape(lower.shape[1:])
    tall, wide = max(2, round(MOUTH_SIZE[0] * height)), max(2, round(MOUTH_SIZE[1] * width))
    sums = np.lib.stride_tricks.sliding_window_view(energy, (tall, wide)).sum(axis=(2, 3))
    row, column = (int(at) for at in np.unravel_index(int(sums.argmax()), sums.shape))
    return top + row, top + row + tall, left + column, left + column + wide


def _quick(values_NP: np.ndarray) -> np.ndarray:
    """The values less the mean of the frames around each: what changes within half a second."""
    padded = np.pad(values_NP.astype(np.float64), ((SWAY_FRAMES // 2 + 1, SWAY_FRAMES // 2), (0, 0)), mode="edge")
    sums = padded.cumsum(axis=0)
    return values_NP - (sums[SWAY_FRAMES:] - sums[:-SWAY_FRAMES]) / SWAY_FRAMES


def _beside(values: list[float], peak: int) -> float:
    """The place of a parabola's peak beside the highest of `values`, -0.5 to 0.5."""
    if not 0 < peak < len(values) - 1:
        return 0.0
    before, after = values[peak] - values[peak - 1], values[peak] - values[peak + 1]
    return (before - after) / (before + after) / 2 if before + after else 0.0


def _correlation(voice: np.ndarray, mouth: np.ndarray, shift: int) -> float:
    """Pearson's, of the voice with the mouth `shift` frames later."""
    count = len(voice) - abs(shift)
    first, second = voice[max(0, -shift) :][:count], mouth[max(0, shift) :][:count]
    first, second = first - first.mean(), second - second.mean()
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size else 0.0
