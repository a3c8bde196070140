"""Sounds to talk with, and how a mouth moves to them. Free of torch.

Legend: S samples at 16 kHz, J video frames at 25 a second.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND, FRAMES_PER_SECOND
from liveavatar_core.errors import BadInput

SAMPLES_PER_FRAME = AUDIO_SAMPLES_PER_SECOND // FRAMES_PER_SECOND
_WORDS = """hello my name is and this was a very long day we should go over to the old house before winter comes again
please open every window because moonlight makes people happy while seven yellow birds are singing outside now
who knows what you would say about music food water fire games boats chairs apples or a quiet evening at home"""
_VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-us+f2", "en-us+f3", "en-gb+f4", "en-us+m3", "en-gb+m5", "en-us+m7")
_LOUD, _QUIET = 1.6, 0.12
"""Level over the recording's own at which a mouth is wide open, and below which it is closed."""
_ROUND_HZ, _SPREAD_HZ = 700.0, 2600.0
"""Spectral centroids of rounded and of spread lips."""


def speech(random: np.random.Generator, seconds: float) -> np.ndarray:
    """Some voice that says words without sense, float32 [S]. Raises BadInput without the program espeak-ng."""
    if shutil.which("espeak-ng") is None:
        raise BadInput("voices are spoken by espeak-ng, which is not installed", "apt-get install espeak-ng")
    words = " ".join(random.choice(_WORDS.split(), size=int(seconds * 4) + 4))
    options = ("-v", str(random.choice(_VOICES)), "-s", str(random.integers(120, 190)), "-p", str(random.integers(80)))
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder, "spoken.wav")
        subprocess.run(["espeak-ng", *options, "-w", str(spoken), words], check=True)
        recorded, rate = soundfile.read(spoken, dtype="float32")
    samples = soxr.resample(recorded, rate, AUDIO_SAMPLES_PER_SECOND)
    return np.asarray(samples[: int(seconds * AUDIO_SAMPLES_PER_SECOND)], dtype=np.float32)


def sound(random: np.random.Generator, seconds: float) -> np.ndarray:
    """A recording as it may come: speech with pauses, sometimes noise alone; always a little noise, float32 [S]."""
    count = int(seconds * AUDIO_SAMPLES_PER_SECOND)
    wave = np.zeros(count, dtype=np.float32)
    if random.uniform() < 0.92:
        spoken = speech(random, seconds)
        wave[: len(spoken)] = spoken
        _pause(wave, random)
    else:
        bursts = np.repeat(random.uniform(0, 1, count // 4000 + 1) > 0.5, 4000)[:count]
        wave += (bursts * random.normal(scale=0.1, size=count)).astype(np.float32)
    hiss = random.normal(scale=10 ** random.uniform(-4, -2.5), size=count)
    return (wave * random.uniform(0.3, 1.0) + hiss).astype(np.float32)


def _pause(wave_S: np.ndarray, random: np.random.Generator) -> None:
    """Silence somewhere, so that mouths also rest."""
    if random.uniform() < 0.6:
        start, length = random.integers(len(wave_S)), random.integers(4000, 16000)
        wave_S[start : start + length] = 0


def mouth(wave_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Opening (0..1) and width (-1..1) of the mouth for each video frame, [J] each.

    The opening follows the level of the 40 ms around a frame, relative to the recording's own level; the width
    follows the spectral centroid.
    """
    frames_JN = _windows(wave_S / (wave_S.std() + 1e-7))
    level_J = np.sqrt((frames_JN**2).mean(axis=1))
    opening = ((level_J - _QUIET) / (_LOUD - _QUIET)).clip(0, 1) ** 0.8
    width = np.where(opening > 0.05, _spread(frames_JN), 0.0)
    return _smooth(opening), _smooth(width)


def _windows(wave_S: np.ndarray) -> np.ndarray:
    """The samples in the 40 ms around the moment of each frame, [J, N]."""
    count, half = len(wave_S) // SAMPLES_PER_FRAME, SAMPLES_PER_FRAME // 2
    padded = np.pad(wave_S[: count * SAMPLES_PER_FRAME], (half, half))
    return padded[: count * SAMPLES_PER_FRAME].reshape(count, SAMPLES_PER_FRAME)


def _spread(frames_JN: np.ndarray) -> np.ndarray:
    spectrum = np.abs(np.fft.rfft(frames_JN * np.hanning(frames_JN.shape[1]), axis=1))
    hertz = np.fft.rfftfreq(frames_JN.shape[1], 1 / AUDIO_SAMPLES_PER_SECOND)
    centroid = (spectrum * hertz).sum(axis=1) / (spectrum.sum(axis=1) + 1e-6)
    share = np.log(centroid.clip(100) / _ROUND_HZ) / np.log(_SPREAD_HZ / _ROUND_HZ)
    return (2 * share - 1).clip(-1, 1)


def _smooth(values_J: np.ndarray) -> np.ndarray:
    """Lips have mass: each frame takes some of its neighbours."""
    padded = np.pad(values_J, 1, mode="edge")
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
