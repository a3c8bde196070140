"""Long recordings in overlapping windows: what the card holds does not depend on how long the recording is.

Each window hears AUDIO_MARGIN_SECONDS on either side of what is kept of it. Normalisation still spans the recording,
and every video frame takes its features from where the whole recording's would lie; attention alone is cut.

Shapes: S samples at 16 kHz, N hidden states (layers + 1), T wav2vec2 frames (50 Hz), J video frames (25 Hz), D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from liveavatar_core import scopes
from liveavatar_core.deployment import AUDIO_MARGIN_SECONDS
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.video_geometry import (
    WAV2VEC2_FRAMES_PER_SECOND,
    audio_frame_of,
    feature_frames_of,
    wav2vec2_frames_of,
)

SAMPLES_PER_FRAME = 320
"""Samples between two frames of wav2vec2: the product of its strides."""
SAMPLES_OF_FRAME = 400
"""Samples that one frame of wav2vec2 is made of."""


@dataclass(frozen=True, kw_only=True)
class AudioWindow:
    """A stretch of a recording, in wav2vec2 frames; ends lie behind the last frame."""

    kept_from: int
    """The first frame that is kept."""
    kept_to: int
    """The end of what is kept."""
    heard_from: int
    """The first frame that is encoded."""
    heard_to: int
    """The end of what is encoded."""

    @property
    def samples(self) -> slice:
        """Samples that the encoded frames are made of."""
        first, last = self.heard_from, self.heard_to - 1
        return slice(first * SAMPLES_PER_FRAME, last * SAMPLES_PER_FRAME + SAMPLES_OF_FRAME)


def audio_windows(frames: int, needed: int, window_seconds: int) -> Iterator[AudioWindow]:
    """Windows over the first `needed` of a recording's `frames`, none longer than `window_seconds`."""
    margin = AUDIO_MARGIN_SECONDS * WAV2VEC2_FRAMES_PER_SECOND
    kept = window_seconds * WAV2VEC2_FRAMES_PER_SECOND - 2 * margin
    for start in range(0, needed, kept):
        end = min(start + kept, needed)
        yield AudioWindow(
            kept_from=start,
            kept_to=end,
            heard_from=max(0, start - margin),
            heard_to=min(frames, end + margin),
        )


@torch.no_grad()
def encode_in_windows(
    encoder: nn.Module,
    waveform_S: NDArray[np.float32],
    video_frames: int,
    *,
    window_seconds: int,
    dtype: torch.dtype,
    memory: Memory,
) -> Tensor:
    """Audio features [1, N, D, J] of the first `video_frames` J of a 16 kHz recording, in host memory.

    Args:
        encoder: hidden states [N, T, D] of a recording [1, S].
        waveform_S: the whole recording; frames behind its end get zeros.
        video_frames: how many frames of video are to be made.
        window_seconds: longest stretch that is encoded at once, more than twice AUDIO_MARGIN_SECONDS.
        dtype: what the encoder computes in.
        memory: where the card and the host are.
    """
    frames = wav2vec2_frames_of(len(waveform_S))
    positions_J = frame_positions(video_frames, frames)
    needed = int(positions_J[-1]) + 1
    mean, deviation = float(waveform_S.mean(dtype=np.float64)), float(np.sqrt(waveform_S.var(dtype=np.float64) + 1e-7))
    features_NDJ: Tensor | None = None
    for window in audio_windows(frames, needed, window_seconds):
        heard_S = memory.move(torch.from_numpy(waveform_S[window.samples]), "card")
        hidden_NTD = encoder(((heard_S - mean) / deviation).to(dtype)[None])
        first, last = np.searchsorted(positions_J, (window.kept_from, window.kept_to))
        piece_NDJ = _between(hidden_NTD, positions_J[first:last] - window.heard_from)
        with scopes.place("host"):
            if features_NDJ is None:
                shape = (*piece_NDJ.shape[:2], video_frames)
                features_NDJ = torch.zeros(shape, dtype=piece_NDJ.dtype, device=memory.host)
            features_NDJ[..., first:last] = piece_NDJ
    assert features_NDJ is not None
    return features_NDJ[None]


def frame_positions(video_frames: int, frames: int) -> NDArray[np.float32]:
    """Where each video frame lies among the recording's wav2vec2 `frames`; those behind the last feature are left out.

    The feature (30 Hz) next to the frame, as in `to_video_frames`, at the place that interpolation with aligned corners
    gives it among the frames (50 Hz), as in `to_feature_rate`; in float32 as there: its rounding counts in long ones.
    """
    features = feature_frames_of(frames)
    nearest = np.array([audio_frame_of(frame) for frame in range(video_frames)])
    scale = np.float32(frames - 1) / np.float32(max(features - 1, 1))
    return nearest[nearest < features].astype(np.float32) * scale


def _between(hidden_NTD: Tensor, positions_J: NDArray[np.float32]) -> Tensor:
    """Hidden states at fractional positions, linearly interpolated in float32: [N, D, J]."""
    left = np.floor(positions_J).astype(np.int64)
    right = np.minimum(left + 1, hidden_NTD.shape[1] - 1)
    share_J1 = torch.tensor(positions_J - left, dtype=torch.float32, device=hidden_NTD.device)[:, None]
    before, after = (hidden_NTD.index_select(1, torch.tensor(at, device=hidden_NTD.device)) for at in (left, right))
    return torch.lerp(before.float(), after.float(), share_J1).to(hidden_NTD.dtype).transpose(1, 2)
