"""Jumps where parts of a film meet: behind the first frames, and between clips.

A jump is the change from one frame to the next, over what the livelier of the frames around it change by: 1 is none.
"""

from __future__ import annotations

import numpy as np

from suites.harness.probes.film.broken import black_N
from suites.harness.probes.film.errors import NotMeasured
from suites.harness.probes.film.sketch import Floats, Sketch

FLOOR_LEVELS = 0.25
"""Levels that any two frames may differ by: in a still picture noise is no jump."""
LIVELY = 0.9
"""The share of frames that change by less than what a jump is measured against."""
FIRST_FRAMES = 4
"""The number of frames that the first latent frame makes: there the portrait ends and the film begins."""


def first_frame_jump_ratio(film: Sketch) -> float:
    """The largest change within the first frames, over that of the frames of the second after them."""
    if film.frames < 2 * FIRST_FRAMES:
        raise NotMeasured(f"{film.frames} frames; {2 * FIRST_FRAMES} are the least")
    changes = _changes(film)
    return float(changes[:FIRST_FRAMES].max() / _usual(changes[FIRST_FRAMES:][:25]))


def clip_jump_ratio(film: Sketch, clip_frames: int) -> float:
    """The largest change from clip to clip, over that of the half clips on both sides."""
    if film.frames <= clip_frames:
        raise NotMeasured("one clip meets no other")
    changes, half = _changes(film), clip_frames // 2
    ratios = []
    for first in range(clip_frames, film.frames, clip_frames):
        meeting = first - 1
        around = np.concatenate([changes[meeting - half : meeting], changes[meeting + 1 : meeting + 1 + half]])
        ratios.append(float(changes[meeting]) / _usual(around))
    return max(ratios)


def _changes(film: Sketch) -> Floats:
    """Changes between neighbouring frames, over tiles; none where one is black, which has a metric of its own."""
    changes = np.abs(np.diff(film.tiles_NRC3, axis=0)).mean(axis=(1, 2, 3))
    black = black_N(film)
    changes[black[1:] | black[:-1]] = 0
    return changes


def _usual(changes: Floats) -> float:
    return max(FLOOR_LEVELS, float(np.quantile(changes, LIVELY)) if len(changes) else 0.0)
