"""How close a video comes to another of the same recipe: latents first, then pixels."""

from __future__ import annotations

import numpy as np

from suites.harness.probes.video.errors import NotMeasured
from suites.harness.probes.video.sketch import LUMA, Floats, Pixels

MOST_DB = 100.0
"""The decibels of videos that are equal to the last bit, whose ratio to noise has no end."""
WINDOW = 8
"""Pixels of a side of the squares that structure is compared in."""


def latent_cosine(latents: np.ndarray, reference: np.ndarray) -> float:
    """Cosine of the angle between all latents of two videos: 1 for equal ones, 0 for unrelated ones."""
    check_same("latents", latents.shape, reference.shape)
    first, second = (np.ravel(each).astype(np.float64) for each in (latents, reference))
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    if not size:
        raise NotMeasured("a video's latents are all 0")
    return float(first @ second) / size


def psnr_db(frames_NHW3: Pixels, reference_NHW3: Pixels) -> float:
    """Peak signal over noise of all pixels together, in decibels: 100 for equal videos, 20 to the eye another video."""
    check_same("frames", frames_NHW3.shape, reference_NHW3.shape)
    errors = [np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(frames_NHW3, reference_NHW3, strict=True)]
    error = float(np.mean(errors))
    return min(MOST_DB, 10 * float(np.log10(255**2 / error))) if error else MOST_DB


def ssim(frames_NHW3: Pixels, reference_NHW3: Pixels) -> float:
    """Structural similarity (Wang et al. 2004) of brightness, in squares of 8 pixels; mean of all places and frames.

    To be shown, not to be gated: kernels that differ in the last bit make other frames of a model of four steps.
    """
    check_same("frames", frames_NHW3.shape, reference_NHW3.shape)
    pairs = zip(frames_NHW3, reference_NHW3, strict=True)
    return float(np.mean([_ssim(a.astype(np.float32) @ LUMA, b.astype(np.float32) @ LUMA) for a, b in pairs]))


def _ssim(first_HW: Floats, second_HW: Floats) -> float:
    steady, contrast = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _means(first_HW), _means(second_HW)
    spread_a, spread_b = _means(first_HW**2) - mean_a**2, _means(second_HW**2) - mean_b**2
    common = _means(first_HW * second_HW) - mean_a * mean_b
    alike = (2 * mean_a * mean_b + steady) * (2 * common + contrast)
    return float((alike / ((mean_a**2 + mean_b**2 + steady) * (spread_a + spread_b + contrast))).mean())


def _means(picture_HW: np.ndarray) -> np.ndarray:
    """The mean of every square, by sums over rows and columns."""
    sums = np.pad(picture_HW.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    squares = sums[WINDOW:, WINDOW:] - sums[:-WINDOW, WINDOW:] - sums[WINDOW:, :-WINDOW] + sums[:-WINDOW, :-WINDOW]
    return squares / WINDOW**2


def check_same(what: str, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    """Raise NotMeasured where shapes differ."""
    if first != second:
        raise NotMeasured(f"{what} {first} against {second} of the reference")
