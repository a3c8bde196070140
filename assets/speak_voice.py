"""Speaks voice.wav: about six seconds of clear speech, 16 kHz, one channel, 16 bits.

Run: python assets/speak_voice.py [FILE]. Needs the program espeak-ng (Debian: apt-get install espeak-ng),
numpy, soundfile and soxr. The same version of espeak-ng speaks the same samples.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

TEXT = "Hello! I am a portrait, and this is my voice. While it speaks, my lips should move."
SPEAK = ("espeak-ng", "-v", "en-us+f3", "-s", "158", "-p", "48", "-g", "2")
SAMPLES_PER_SECOND = 16_000
PEAK = 0.7


def speech() -> np.ndarray:
    """The spoken text as float32 samples [N] at 16 kHz, its peak at PEAK of full scale."""
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder, "spoken.wav")
        subprocess.run([*SPEAK, "-w", str(spoken), TEXT], check=True)
        recorded, rate = soundfile.read(spoken, dtype="float32")
    samples = soxr.resample(recorded, rate, SAMPLES_PER_SECOND)
    return np.asarray(samples * (PEAK / np.abs(samples).max()))


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("voice.wav")
    soundfile.write(target, speech(), SAMPLES_PER_SECOND, subtype="PCM_16")
