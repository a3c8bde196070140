"""Jumps where parts of a video meet: behind the first frames, and between clips.

A jump is the change from one frame to the next, over what the livelier of the frames around it change by: 1 is none.
"""

from __future__ import annotations

import numpy as np

from suites.harness.probes.video.broken import black_N
from suites.harness.probes.video.errors import NotMeasured
from suites.harness.probes.video.sketch import Floats, Sketch

FLOOR_LEVELS = 0.25
"""Levels that any two frames may differ by: in a still picture noise is no jump."""
LIVELY = 0.9
"""The share of frames that change by less than what a jump is measured against."""
FIRST_FRAMES = 4
"""The number of frames that the first latent frame makes: there the portrait ends and the video begins."""


def first_frame_jump_ratio(video: Sketch) -> float:
    """The largest change within the first frames, over that of the frames of the second after them."""
    if video.frames < 2 * FIRST_FRAMES:
        raise NotMeasured(f"{video.frames} frames; {2 * FIRST_FRAMES} are the least")
    changes = _changes(video)
    return float(changes[:FIRST_FRAMES].max() / _usual(changes[FIRST_FRAMES:][:25]))


def clip_jump_ratio(video: Sketch, clip_frames: int) -> float:
    """The largest change from clip to clip, over that of the half clips on both sides."""
    if video.frames <= clip_frames:
        raise NotMeasured("one clip meets no other")
    changes, half = _changes(video), clip_frames // 2
    ratios = []
    for first in range(clip_frames, video.frames, clip_frames):
        meeting = first - 1
        around = np.concatenate([changes[meeting - half : meeting], changes[meeting + 1 : meeting + 1 + half]])
        ratios.append(float(changes[meeting]) / _usual(around))
    return max(ratios)


def _changes(video: Sketch) -> Floats:
    """Changes between neighbouring frames, over tiles; none where one is black, which has a metric of its own."""
    changes = np.abs(np.diff(video.tiles_NRC3, axis=0)).mean(axis=(1, 2, 3))
    black = black_N(video)
    changes[black[1:] | black[:-1]] = 0
    return changes


def _usual(changes: Floats) -> float:
    return max(FLOOR_LEVELS, float(np.quantile(changes, LIVELY)) if len(changes) else 0.0)
