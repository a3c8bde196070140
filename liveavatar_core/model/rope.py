"""Rotary position embedding over time, rows and columns.

Legend: B batch, L or N tokens, H heads, D head width, C = D/2 pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REFERENCE_TIME = 30
"""Rotary time of the reference image while the video is near its start."""
BASE = 10000.0

Positions = NDArray[np.float64]
"""[N, 3]: time, row and column of each token."""


def rotary_table(positions_N3: Positions, head_dim: int, *, float16: bool, device: torch.device) -> Tensor:
    """[N, C] complex64: cos + i sin of every pair's angle; angles are float64.

    The C pairs are split over the axes: a third each for rows and columns, what is left for time. `float16`
    rounds cosines and sines as the original does.
    """
    third = head_dim // 2 // 3
    counts = (head_dim // 2 - 2 * third, third, third)
    frequencies_C = np.concatenate([BASE ** (-np.arange(count) / count) for count in counts])
    angles_NC = np.repeat(positions_N3, counts, axis=1) * frequencies_C
    parts_NC2 = np.stack([np.cos(angles_NC), np.sin(angles_NC)], axis=-1)
    if float16:
        parts_NC2 = parts_NC2.astype(np.float16)
    table_NC = parts_NC2.astype(np.float32).view(np.complex64).squeeze(-1)
    return torch.tensor(table_NC, device=device)


def rotate(x_BHLD: Tensor, table_LC: Tensor) -> Tensor:
    """Turn each pair (2i, 2i+1) of `x` by its token's angle; computed in float32, returned in x's dtype.

    Complex numbers, because their product is one pass over memory.
    """
    pairs_BHLC = torch.view_as_complex(x_BHLD.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs_BHLC * table_LC).flatten(-2).to(x_BHLD.dtype)


def noisy_positions(frame: int, frames: int, height: int, width: int) -> Positions:
    """Positions of the tokens of a block that starts at latent frame `frame`; order f, h, w."""
    return _grid(range(frame, frame + frames), range(height), range(width))


def motion_positions(latent_height: int, latent_width: int) -> Positions:
    """Positions of the motion tokens, newest first: 1 frame whole, then 2 halved and 16 quartered in every axis."""
    whole = _grid([-1], range(latent_height // 2), range(latent_width // 2))
    packed = [
        _grid(
            times,
            _spread(latent_height // 2, latent_height // patch),
            _spread(latent_width // 2, latent_width // patch),
        )
        for times, patch in (([-3], 4), ([-19, -14, -9, -4], 8))
    ]
    return np.concatenate([whole, *packed])


def sink_positions(latent_height: int, latent_width: int, shift: int) -> Positions:
    """Positions of reference and motion tokens; the reference stands `shift` frames later than at the start."""
    reference = _grid([REFERENCE_TIME + shift], range(latent_height // 2), range(latent_width // 2))
    return np.concatenate([reference, motion_positions(latent_height, latent_width)])


def reference_shift(frame: int, relative_dist: int) -> int:
    """Frames that the reference moves, to stay at most `relative_dist` ahead of a block at `frame`."""
    return max(0, frame - (REFERENCE_TIME - relative_dist))


def _spread(length: int, count: int) -> list[int]:
    """`count` whole positions from 0 to length - 1; numpy's rounding is part of the trained model."""
    return [int(position) for position in np.linspace(0, length - 1, count)]


def _grid(times: Sequence[int], rows: Sequence[int], columns: Sequence[int]) -> Positions:
    axes = np.meshgrid(times, rows, columns, indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, 3).astype(np.float64)
