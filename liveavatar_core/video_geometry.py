"""How large and how long the video becomes: output size, the portrait fitted to it, clips in a recording.

Free of torch. Heights come before widths everywhere.
"""

from __future__ import annotations

import math

from PIL import Image

from liveavatar_core.config import FRAMES_PER_SECOND
from liveavatar_core.errors import BadInput

FEATURES_PER_SECOND = 30
"""Rate that the audio features are resampled to."""
WAV2VEC2_FRAMES_PER_SECOND = 50
_GRID = 64
_STEPS = 100
_WAV2VEC2_LAYERS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
"""Kernel and stride of wav2vec2's convolutions."""


def output_size(height: int, width: int, max_area: int) -> tuple[int, int]:
    """Height and width of the video for a portrait of `height` x `width`.

    Both are multiples of 64, together at most `max_area` pixels. Walks down from the largest scale of the
    portrait that could fit, and takes the first that does once both sides are rounded up to the grid.
    Raises BadInput for a portrait so narrow that a side would vanish.
    """
    size = _size_by_scale(height, width, max_area) or _size_by_aspect(height, width, max_area)
    if not all(size):
        raise BadInput(
            f"a portrait of {width}x{height} pixels is too narrow for a video of {max_area} pixels",
            "give a portrait with a common aspect, or a larger --size",
        )
    return size


def _size_by_scale(height: int, width: int, max_area: int) -> tuple[int, int] | None:
    low, high = _scale_range(height, width, max_area)
    for step in range(_STEPS):
        scale = high - (high - low) * step / _STEPS
        size = _round_up(int(height * scale)), _round_up(int(width * scale))
        if size[0] * size[1] <= max_area:
            return size
    return None


def _scale_range(height: int, width: int, max_area: int) -> tuple[float, float]:
    """Scales between which the size is looked for; the lower one surely fits after rounding up."""
    area = height * width
    if area <= max_area:
        return 0.1, 1.0
    rounding = _GRID - 1
    half, constant = rounding * (height + width), rounding * rounding - max_area
    low = (-half + math.sqrt(half * half - 2 * area * constant)) / (2 * area)
    return low, math.sqrt(max_area / area)


def _size_by_aspect(height: int, width: int, max_area: int) -> tuple[int, int]:
    """Where no scale fits: the grid size of the portrait's aspect, never larger than the portrait."""
    aspect = width / height
    out_width = int((max_area * aspect) ** 0.5 // _GRID * _GRID)
    out_height = int((max_area / aspect) ** 0.5 // _GRID * _GRID)
    if out_width >= width or out_height >= height:
        out_width, out_height = int(width // _GRID * _GRID), int(height // _GRID * _GRID)
    return out_height, out_width


def _round_up(pixels: int) -> int:
    return math.ceil(pixels / _GRID) * _GRID


def fit_portrait(image: Image.Image, height: int, width: int, *, letterbox: bool) -> Image.Image:
    """The portrait scaled, centred and cut to exactly `height` x `width`.

    letterbox False: scaled until it covers the size. True, as the original: its shorter side is scaled to the
    size's shorter side, so that black bars fill what it does not cover.
    """
    scale_to = _letterbox_scale if letterbox else _covering_scale
    resized = image.resize(scale_to(image.size, (width, height)), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(resized, (_offset(resized.width, width), _offset(resized.height, height)))
    return canvas


def _letterbox_scale(image: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Width and height such that the shorter side is the target's shorter side."""
    shorter, side = min(image), min(target)
    longer = int(side * max(image) / shorter)
    return (side, longer) if image[0] <= image[1] else (longer, side)


def _covering_scale(image: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Width and height that cover the target, aspect kept."""
    scale = max(target[0] / image[0], target[1] / image[1])
    width, height = (max(wanted, round(have * scale)) for have, wanted in zip(image, target, strict=True))
    return width, height


def _offset(have: int, want: int) -> int:
    """Where a side of `have` pixels starts on one of `want`, centred: negative when it is cut."""
    return (want - have) // 2 if have < want else -round((have - want) / 2)


def wav2vec2_frames_of(samples: int) -> int:
    """Frames (50 Hz) that wav2vec2 makes of `samples` at 16 kHz."""
    for kernel, stride in _WAV2VEC2_LAYERS:
        samples = (samples - kernel) // stride + 1
    return max(samples, 0)


def feature_frames_of(wav2vec2_frames: int) -> int:
    """Audio features (30 Hz) made of `wav2vec2_frames`."""
    return int(wav2vec2_frames / WAV2VEC2_FRAMES_PER_SECOND * FEATURES_PER_SECOND)


def num_clips_of(feature_frames: int, infer_frames: int) -> int:
    """Clips of `infer_frames` video frames that `feature_frames` last for, the last one begun included."""
    return int(feature_frames / (infer_frames * FEATURES_PER_SECOND / FRAMES_PER_SECOND)) + 1


def num_clips_in(samples: int, infer_frames: int) -> int:
    """Clips that a recording of `samples` at 16 kHz lasts for."""
    return num_clips_of(feature_frames_of(wav2vec2_frames_of(samples)), infer_frames)


def audio_frame_of(video_frame: int) -> int:
    """The audio feature (30 Hz) next to a video frame."""
    return round(video_frame / FRAMES_PER_SECOND * FEATURES_PER_SECOND)
