"""What the metrics keep of each frame: a video of any length and size passes once, a few kilobytes a frame stay.

Legend: N frames, H W pixels, R C rows and columns of tiles, h w pixels of the small picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from suites.harness.probes.video.errors import NotMeasured

TILES = 16
"""Rows and columns of tiles."""
SMALL_PIXELS = 64
"""The shorter side of the small picture: enough to find a mouth."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in brightness (BT.601)."""

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """A video, reduced. Levels are those of 8 bits, 0 to 255."""

    tiles_NRC3: Floats
    """Mean colour of each tile."""
    small_Nhw: Pixels
    """Brightness of the small picture."""
    change_levels_N: Floats
    """Mean difference from the frame before over all pixels; 0 for the first frame."""
    spread_levels_N: Floats
    """Standard deviation of brightness over the frame."""
    detail_ratio_N: Floats
    """Standard deviation of the Laplacian of brightness over that of brightness; NaN in a frame without contrast."""

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.tiles_NRC3)

    @property
    def brightness_NRC(self) -> Floats:
        """Brightness of each tile."""
        return self.tiles_NRC3 @ LUMA


def sketch(frames: Iterable[Pixels]) -> Sketch:
    """Reduce `frames`, each uint8 [H, W, 3], to what the metrics need. Raises NotMeasured where there is none."""
    tiles, small, changes, spreads, details = [], [], [], [], []
    before: Floats | None = None
    for frame in frames:
        frame_HW3 = np.asarray(frame, np.float32)
        luma_HW = frame_HW3 @ LUMA
        tiles.append(_pooled(frame_HW3, TILES, TILES))
        small.append(_small(luma_HW))
        changes.append(0.0 if before is None else float(np.abs(frame_HW3 - before).mean()))
        spreads.append(float(luma_HW.std()))
        details.append(_detail(luma_HW))
        before = frame_HW3
    if not tiles:
        raise NotMeasured("the video has no frame")
    return Sketch(
        tiles_NRC3=np.stack(tiles),
        small_Nhw=np.stack(small),
        change_levels_N=np.array(changes, np.float32),
        spread_levels_N=np.array(spreads, np.float32),
        detail_ratio_N=np.array(details, np.float32),
    )


def _pooled(picture: Floats, rows: int, columns: int) -> Floats:
    """Means over a grid; pixels beyond whole tiles, and rows that would get none, are left out."""
    height, width = picture.shape[:2]
    rows, columns = min(rows, height), min(columns, width)
    tall, wide = height // rows, width // columns
    cut = picture[: rows * tall, : columns * wide]
    return cut.reshape(rows, tall, columns, wide, *picture.shape[2:]).mean(axis=(1, 3))


def _small(luma_HW: Floats) -> Pixels:
    factor = max(1, min(luma_HW.shape) // SMALL_PIXELS)
    return _pooled(luma_HW, luma_HW.shape[0] // factor, luma_HW.shape[1] // factor).round().astype(np.uint8)


NO_CONTRAST_LEVELS = 2.0
"""The spread of brightness below which there is nothing that could be sharp."""


def _detail(luma_HW: Floats) -> float:
    spread = float(luma_HW.std())
    if spread < NO_CONTRAST_LEVELS:
        return float("nan")
    middle = luma_HW[1:-1, 1:-1]
    around = luma_HW[:-2, 1:-1] + luma_HW[2:, 1:-1] + luma_HW[1:-1, :-2] + luma_HW[1:-1, 2:]
    return float((around - 4 * middle).std()) / spread
