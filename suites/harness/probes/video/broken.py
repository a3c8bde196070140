"""Frames that show nothing, or nothing new."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from suites.harness.probes.video.errors import NotMeasured
from suites.harness.probes.video.sketch import Sketch

BLACK_LEVELS = 20.0
"""Brightness below which a frame is black: video's black is 16, and a coder adds a little."""
FLAT_LEVELS = 4.0
"""A dark frame whose brightness varies by more than this shows something."""
STILL_LEVELS = 0.05
"""A change smaller than this is none: of 64 x 64 pixels 1 differs by 200 levels, or 200 by 1."""

FREEZE_FRAMES = 3
"""Fewer repeats are no freeze: coders leave out what changes too little, a frame here and there."""


def black_N(video: Sketch) -> NDArray[np.bool_]:
    """Whether each frame is black."""
    return (video.brightness_NRC.mean(axis=(1, 2)) < BLACK_LEVELS) & (video.spread_levels_N < FLAT_LEVELS)


def black_frames_share(video: Sketch) -> float:
    """Part of the frames that are black, 0 to 1."""
    return float(black_N(video).mean())


def frozen_frames_share(video: Sketch) -> float:
    """Part of the frames, black ones left out, that repeat the one before, three or more in a row; 0 to 1."""
    shown = ~(black_N(video)[1:] & black_N(video)[:-1])
    if not shown.any():
        raise NotMeasured("no two frames that follow each other show anything")
    return float(_in_a_row(video.change_levels_N[1:][shown] < STILL_LEVELS).mean())


def _in_a_row(repeats_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The repeats of `repeats_N` that belong to a freeze."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], repeats_N, [False]]).astype(int)))
    kept = np.zeros_like(repeats_N)
    for first, end in edges.reshape(-1, 2):
        kept[first:end] = end - first >= FREEZE_FRAMES
    return kept
