"""What a video loses from clip to clip: colour, sharpness, likeness. Straight lines through the clips' values."""

from __future__ import annotations

import numpy as np

from suites.harness.probes.video.errors import NotMeasured
from suites.harness.probes.video.sketch import Floats, Sketch

CELLS = 8
"""Rows and columns of cells in which contours are counted."""
DIRECTIONS = 9
"""Directions of contours, of half a turn."""


def sharpness_ratio(video: Sketch) -> float:
    """Fine detail over contrast, the median of all frames. Brightness, contrast and colour do not move it."""
    return _detail(video.detail_ratio_N)


def sharpness_loss_share_per_clip(video: Sketch, clip_frames: int) -> float:
    """Part of its sharpness that the video loses with each clip; less than 0 where it gains."""
    details = [_detail(video.detail_ratio_N[each]) for each in _clips(video, clip_frames)]
    return -float(_slope(np.array(details)[:, None])[0]) / details[0]


def _detail(ratios: Floats) -> float:
    known = ratios[np.isfinite(ratios)]
    if not len(known):
        raise NotMeasured("no frame has any contrast")
    return float(np.median(known))


def colour_drift_levels_per_clip(video: Sketch, clip_frames: int) -> float:
    """How far red, green and blue move with each clip: the root of their mean square."""
    colour_N3 = video.tiles_NRC3.mean(axis=(1, 2))
    colours = [np.median(colour_N3[each], axis=0) for each in _clips(video, clip_frames)]
    return float(np.sqrt(np.mean(_slope(np.array(colours)) ** 2)))


def identity_drift_per_clip(video: Sketch, clip_frames: int) -> float:
    """How much less each clip looks like the first: 1 - cosine of contours (a histogram of their directions).

    Contours neither see colour nor brightness. It is no face recognition: a turned head counts as well.
    """
    likeness = [_contours(video.small_Nhw[each]) for each in _clips(video, clip_frames)]
    away = np.array([1 - float(likeness[0] @ each) for each in likeness])
    return float(_slope(away[:, None])[0])


def _contours(small_Nhw: np.ndarray) -> Floats:
    """The contours of a clip's mean picture, as a vector of length 1."""
    down, right = np.gradient(small_Nhw.mean(axis=0, dtype=np.float64))
    strength, turn = np.hypot(down, right), np.arctan2(down, right) % np.pi
    direction = np.minimum((turn / np.pi * DIRECTIONS).astype(int), DIRECTIONS - 1)
    rows = np.arange(strength.shape[0]) * CELLS // strength.shape[0]
    columns = np.arange(strength.shape[1]) * CELLS // strength.shape[1]
    counted = np.zeros((CELLS, CELLS, DIRECTIONS))
    np.add.at(counted, (rows[:, None], columns[None, :], direction), strength)
    vector = np.sqrt(counted).ravel()  # a root keeps one strong edge from being all that counts
    length = float(np.linalg.norm(vector))
    if not length:
        raise NotMeasured("a clip has no contours")
    return (vector / length).astype(np.float32)


def _clips(video: Sketch, clip_frames: int) -> list[slice]:
    count = video.frames // clip_frames
    if count < 2:
        raise NotMeasured("one clip has no drift")
    return [slice(at * clip_frames, (at + 1) * clip_frames) for at in range(count)]


def _slope(values_CK: np.ndarray) -> np.ndarray:
    """Change a clip of each column, by least squares."""
    at = np.arange(len(values_CK)) - (len(values_CK) - 1) / 2
    return at @ values_CK / (at @ at)
