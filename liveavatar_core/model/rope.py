"""Rotary position embedding over time, rows and columns.

Legend: N tokens, C = D/2 pairs, D head width, B batch, L tokens, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

REFERENCE_TIME = 30
"""Rotary time of the reference image while the video is near its start."""
BASE = 10000.0


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Cosines and sines of N tokens, each pair's value written twice, ready for `rotate`."""

    cos_N1D: Tensor
    """cos of pair i at 2i and 2i+1; float32."""
    sin_N1D: Tensor
    """-sin of pair i at 2i, +sin at 2i+1; float32."""


def rotary_table(positions_N3: Tensor, head_dim: int, *, float16: bool) -> Rotary:
    """Table for tokens at (time, row, column), float64 positions. `float16` rounds it as the original does.

    The D/2 pairs are split over the axes: a third each for rows and columns, what is left for time.
    """
    third = head_dim // 2 // 3
    pairs = (head_dim // 2 - 2 * third, third, third)
    angles_NC = torch.cat([_angles(positions_N3[:, axis], count) for axis, count in enumerate(pairs)], dim=-1)
    cos_NC, sin_NC = angles_NC.cos(), angles_NC.sin()
    if float16:
        cos_NC, sin_NC = cos_NC.half(), sin_NC.half()
    cos_NC, sin_NC = cos_NC.float(), sin_NC.float()
    return Rotary(
        cos_N1D=torch.stack([cos_NC, cos_NC], dim=-1).flatten(1).unsqueeze(1),
        sin_N1D=torch.stack([-sin_NC, sin_NC], dim=-1).flatten(1).unsqueeze(1),
    )


def _angles(positions_N: Tensor, count: int) -> Tensor:
    exponents = torch.arange(count, dtype=torch.float64, device=positions_N.device) / count
    return positions_N[:, None] * BASE**-exponents


def rotate(x_BLHD: Tensor, rotary: Rotary) -> Tensor:
    """Turn each pair (2i, 2i+1) of `x` by its token's angle; computed in float32, returned in x's dtype."""
    swapped = x_BLHD.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return (x_BLHD * rotary.cos_N1D).addcmul_(swapped, rotary.sin_N1D).to(x_BLHD.dtype)


def noisy_positions(frame: int, frames: int, height: int, width: int, device: torch.device) -> Tensor:
    """[frames*height*width, 3] positions of a block that starts at latent frame `frame`; token order f, h, w."""
    times = range(frame, frame + frames)
    return _grid(list(times), list(range(height)), list(range(width)), device)


def motion_positions(latent_height: int, latent_width: int, device: torch.device) -> Tensor:
    """[N, 3] positions of the motion tokens, newest first: 1 frame whole, 2 halved, 16 quartered (in all axes)."""
    height, width = latent_height // 2, latent_width // 2
    post = _grid([-1], list(range(height)), list(range(width)), device)
    return torch.cat(
        [post]
        + [
            _grid(times, _spread(height, latent_height // cut), _spread(width, latent_width // cut), device)
            for times, cut in (([-3], 4), ([-19, -14, -9, -4], 8))
        ]
    )


def sink_positions(latent_height: int, latent_width: int, shift: int, device: torch.device) -> Tensor:
    """[N, 3] positions of reference and motion tokens; the reference stands `shift` frames later than at the start."""
    rows, columns = list(range(latent_height // 2)), list(range(latent_width // 2))
    reference = _grid([REFERENCE_TIME + shift], rows, columns, device)
    return torch.cat([reference, motion_positions(latent_height, latent_width, device)])


def reference_shift(frame: int, relative_dist: int) -> int:
    """Frames by which the reference follows a block at latent frame `frame`, to stay `relative_dist` away at most."""
    return max(0, frame - (REFERENCE_TIME - relative_dist))


def _spread(length: int, count: int) -> list[int]:
    """`count` whole positions from 0 to length - 1; numpy's rounding is part of the trained model."""
    return [int(position) for position in np.linspace(0, length - 1, count)]


def _grid(times: list[int], rows: list[int], columns: list[int], device: torch.device) -> Tensor:
    axes = [torch.tensor(axis, dtype=torch.float64, device=device) for axis in (times, rows, columns)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
