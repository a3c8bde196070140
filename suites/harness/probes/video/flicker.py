"""Brightness that goes up and down over the whole picture, which nothing that moves in it does."""

from __future__ import annotations

import numpy as np

from suites.harness.probes.video.broken import black_N
from suites.harness.probes.video.errors import NotMeasured
from suites.harness.probes.video.jumps import FIRST_FRAMES
from suites.harness.probes.video.sketch import Sketch


def flicker_levels(video: Sketch, clip_frames: int) -> float:
    """How much the brightness of the whole picture swings, in levels a frame; above what motion explains.

    What all tiles change by together is their median change; a swing is where it turns. How far tiles differ from
    the median is motion, and counts as floor. Black frames, first frames and meetings of clips are left out: they have
    metrics of their own.
    """
    change_NT = np.diff(video.brightness_NRC.reshape(video.frames, -1), axis=0)
    together_N = np.median(change_NT, axis=1)
    motion_N = np.median(np.abs(change_NT - together_N[:, None]), axis=1)
    swing = np.abs(np.diff(together_N)) / 2
    floor = (motion_N[1:] + motion_N[:-1]) / 2
    counts = _counts(video, clip_frames)
    if not counts.any():
        raise NotMeasured(f"of {video.frames} frames no three that follow each other count")
    return float(np.maximum(0, swing - floor)[counts].mean())


def _counts(video: Sketch, clip_frames: int) -> np.ndarray:
    """Whether each three frames that follow each other count."""
    frame = np.arange(video.frames)
    meets = (frame % clip_frames == 0) | (frame < FIRST_FRAMES + 1)
    bad = black_N(video)
    return ~(bad[:-2] | bad[1:-1] | bad[2:] | meets[1:-1] | meets[2:])
