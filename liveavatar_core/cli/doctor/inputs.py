"""The portrait and the voice: whether a video of them can look and sound right. Shapes: H and W pixels, S samples."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from liveavatar_core.cli.doctor.checks import CheckGroup, CheckResult, bad, good, limited, refused, skipped
from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND

LONG_SIDE = 512
"""Pixels that portraits are brought to before their sharpness is measured, so that sizes can be compared."""
LEAST_SIDE = 256
"""Pixels of a portrait's shorter side; less is enlarged beyond what shows a mouth."""
LEAST_SHARPNESS = 30.0
"""Variance of the Laplacian (8-bit grey); an out-of-focus photograph has less, a sharp one hundreds."""
FACE_SHARE = (0.01, 0.7)
"""Part of the picture that has the colour of skin, at least and at most."""
LEVEL_DBFS = (-40.0, -3.0)
"""Loudness of speech (RMS of its louder half): below, noise of 16-bit recordings shows; above, peaks are cut."""
LEAST_SNR_DB = 15.0
"""Speech over what lies between words; below, wav2vec2 follows the noise and the mouth never closes."""
MOST_CLIPPED = 0.001
"""Part of the samples at full scale."""
FRAME = AUDIO_SAMPLES_PER_SECOND // 50
"""Samples of 20 ms."""

Grey = NDArray[np.float64]


def inputs_branch(image: Path | None, audio: Path | None) -> CheckGroup:
    """Both, where they are given."""
    from liveavatar_core.media import read_audio, read_image

    portrait: list[CheckResult] = [skipped("portrait", "no --image was given")]
    voice: list[CheckResult] = [skipped("voice", "no --audio was given")]
    if image is not None:
        opened = refused("portrait", lambda: good("portrait", "can be read: " + _size(read_image(image))))
        portrait = [opened, *(portrait_findings(read_image(image)) if opened.status == "good" else [])]
    if audio is not None:
        opened = refused("voice", lambda: good("voice", f"{len(read_audio(audio)) / AUDIO_SAMPLES_PER_SECOND:.1f} s"))
        voice = [opened, *(voice_findings(read_audio(audio)) if opened.status == "good" else [])]
    return CheckGroup(name="inputs", results=(*portrait, *voice))


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height} pixels"


def portrait_findings(image: Image.Image) -> list[CheckResult]:
    """Size, sharpness and where the face may be."""
    return [_large_enough(image), _sharp(image), _face(image)]


def _large_enough(image: Image.Image) -> CheckResult:
    found = f"{_size(image)}; the shorter side wants {LEAST_SIDE}"
    if min(image.size) < LEAST_SIDE:
        return limited("portrait size", found, "give a larger picture")
    return good("portrait size", found)


def _sharp(image: Image.Image) -> CheckResult:
    value = sharpness(image)
    found = f"variance of the Laplacian {value:.0f}; {LEAST_SHARPNESS:.0f} is the least"
    if value < LEAST_SHARPNESS:
        return bad("portrait sharpness", found, "give a picture that is in focus and was not enlarged")
    return good("portrait sharpness", found)


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian at a common size."""
    factor = LONG_SIDE / max(image.size)
    size = [max(3, round(side * factor)) for side in image.size]
    grey_HW: Grey = np.asarray(image.convert("L").resize((size[0], size[1])), np.float64)
    inner = grey_HW[1:-1, 1:-1]
    around = grey_HW[:-2, 1:-1] + grey_HW[2:, 1:-1] + grey_HW[1:-1, :-2] + grey_HW[1:-1, 2:]
    return float((around - 4 * inner).var())


def _face(image: Image.Image) -> CheckResult:
    """From colour alone: enough to notice a landscape or a face at the edge, not enough to refuse a portrait."""
    share, across, down = skin(image)
    found = f"skin-coloured: {share:.0%} of the picture, centred {across:.0%} across and {down:.0%} down"
    if not FACE_SHARE[0] <= share <= FACE_SHARE[1]:
        return limited("face position", found, "look whether the face is visible, and neither tiny nor all there is")
    if not (0.25 <= across <= 0.75 and 0.1 <= down <= 0.75):
        return limited("face position", found, "crop the picture so that the face is in the middle, above centre")
    return good("face position", found)


def skin(image: Image.Image) -> tuple[float, float, float]:
    """Part of the pixels in the chroma range of skin (of every tone), and their middle: across, down, 0 to 1."""
    _, blue_HW, red_HW = (np.asarray(band) for band in image.resize((128, 128)).convert("YCbCr").split())
    inside_HW = (blue_HW >= 77) & (blue_HW <= 127) & (red_HW >= 133) & (red_HW <= 173)
    if not inside_HW.any():
        return 0.0, 0.5, 0.5
    down, across = (float(np.median(each)) / 127 for each in np.nonzero(inside_HW))
    return float(inside_HW.mean()), across, down


def voice_findings(samples_S: NDArray[np.float32]) -> list[CheckResult]:
    """Level, clipping, signal to noise."""
    return [_level(samples_S), _clipping(samples_S), _noise(samples_S)]


def _level(samples_S: NDArray[np.float32]) -> CheckResult:
    level = _decibels(frame_powers(samples_S)[-1])
    found = f"{level:.0f} dBFS; {LEVEL_DBFS[0]:.0f} to {LEVEL_DBFS[1]:.0f} is right"
    if not LEVEL_DBFS[0] <= level <= LEVEL_DBFS[1]:
        return bad("voice level", found, "record louder" if level < LEVEL_DBFS[0] else "record at a lower level")
    return good("voice level", found)


def _clipping(samples_S: NDArray[np.float32]) -> CheckResult:
    share = float((np.abs(samples_S) >= 0.999).mean())
    if share > MOST_CLIPPED:
        return bad("voice clipping", f"{share:.2%} of the samples are at full scale", "record at a lower level")
    return good("voice clipping", f"{share:.2%} of the samples are at full scale")


def _noise(samples_S: NDArray[np.float32]) -> CheckResult:
    quiet, loud = frame_powers(samples_S)
    ratio = _decibels(loud) - _decibels(quiet)
    found = f"speech {ratio:.0f} dB over pauses; {LEAST_SNR_DB:.0f} is the least"
    if ratio < LEAST_SNR_DB:
        return limited("voice signal to noise", found, "record in a quiet room, or take the music out")
    return good("voice signal to noise", found)


def frame_powers(samples_S: NDArray[np.float32]) -> tuple[float, float]:
    """Mean power of the quietest tenth of 20 ms frames, and of the louder half."""
    count = max(len(samples_S) // FRAME, 1)
    padded = np.pad(samples_S[: count * FRAME].astype(np.float64), (0, max(count * FRAME - len(samples_S), 0)))
    powers = np.sort((padded.reshape(count, FRAME) ** 2).mean(axis=1))
    return float(powers[: max(count // 10, 1)].mean()), float(powers[count // 2 :].mean())


def _decibels(power: float) -> float:
    return 10 * math.log10(max(power, 1e-12))
