"""A long voice in windows: the same features as at once wherever attention is not cut, for any length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from liveavatar_core.deployment import AUDIO_MARGIN_SECONDS, Deployment
from liveavatar_core.encoders.audio import encode_audio
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.pipeline import audio_windows
from liveavatar_core.pipeline.audio_windows import audio_windows as windows
from liveavatar_core.pipeline.audio_windows import encode_in_windows
from liveavatar_core.pipeline.conditioning import encode
from liveavatar_core.pipeline.types import Inputs
from liveavatar_core.recipes import TINY, miniature, named_recipe
from liveavatar_core.simulation.estimate import simulated_inputs
from liveavatar_core.video_geometry import num_clips_in, wav2vec2_frames_of

FRAMES = 48


class LocalEncoder(nn.Module):
    """Frames as wav2vec2's, each made of what lies 1.3 s around it: all of wav2vec2 but its attention."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frames = nn.Conv1d(1, 8, 400, stride=320)
        self.near = nn.Conv1d(8, 8, 129, padding=64)
        self.longest = 0

    def forward(self, recording_BS: Tensor) -> Tensor:
        """Two hidden states [2, T, D]."""
        self.longest = max(self.longest, recording_BS.shape[-1])
        frames = self.frames(recording_BS[None])
        return torch.cat([frames, self.near(frames)]).transpose(1, 2)


def voice(seconds: float) -> np.ndarray:
    moments = np.arange(int(seconds * 16_000)) / 16_000
    loudness = 0.1 + 0.09 * np.sin(moments / 7)
    return (loudness * np.random.default_rng(1).normal(size=len(moments)) + 0.01).astype(np.float32)


def in_windows(encoder: nn.Module, recording: np.ndarray, video_frames: int, seconds: int = 20) -> Tensor:
    memory = Memory(card=torch.device("cpu"))
    return encode_in_windows(
        encoder, recording, video_frames, window_seconds=seconds, dtype=torch.float32, memory=memory
    )


def at_once(encoder: nn.Module, recording: np.ndarray) -> Tensor:
    return encode_audio(encoder, torch.from_numpy(recording), FRAMES)


@pytest.mark.parametrize("seconds", [20.02, 31.7, 47.113, 60.0])
def test_windows_give_what_the_whole_recording_gives(seconds: float):
    encoder, recording = LocalEncoder(), voice(seconds)
    whole = at_once(encoder, recording)
    assert num_clips_in(len(recording), FRAMES) * FRAMES == whole.shape[-1]
    torch.testing.assert_close(in_windows(encoder, recording, whole.shape[-1]), whole, atol=5e-5, rtol=0)


def test_windows_that_do_not_overlap_are_seen(monkeypatch: pytest.MonkeyPatch):
    """What the overlap is for: without it frames beside a window's end differ."""
    encoder, recording = LocalEncoder(), voice(47)
    whole = at_once(encoder, recording)
    monkeypatch.setattr(audio_windows, "AUDIO_MARGIN_SECONDS", 0)
    assert (in_windows(encoder, recording, whole.shape[-1]) - whole).abs().max() > 1e-2


def test_nothing_is_encoded_that_no_clip_needs():
    encoder, recording = LocalEncoder(), voice(200)
    few = in_windows(encoder, recording, 2 * FRAMES)
    assert encoder.longest <= (2 * FRAMES / 25 + AUDIO_MARGIN_SECONDS + 0.1) * 16_000
    torch.testing.assert_close(few, at_once(encoder, recording)[..., : 2 * FRAMES], atol=5e-5, rtol=0)


def test_no_window_is_longer_than_declared():
    encoder = LocalEncoder()
    in_windows(encoder, voice(130), 100 * 25, seconds=30)
    assert encoder.longest <= 30 * 16_000 + 400


def test_windows_keep_every_frame_once():
    frames = wav2vec2_frames_of(100 * 16_000)
    made = list(windows(frames, frames, 20))
    assert [frame for each in made for frame in range(each.kept_from, each.kept_to)] == list(range(frames))
    assert all(each.samples.stop <= 100 * 16_000 for each in made)


def test_a_voice_no_longer_than_a_window_is_encoded_as_the_original_does():
    """Through the pipeline: 60 s by default, whatever the clips need of it."""
    from liveavatar_core.pipeline import open_avatar

    recipe = miniature(named_recipe("single", 1))
    assert recipe.model == TINY
    avatar = open_avatar(replace(recipe, clip=replace(recipe.clip, num_clip=2)))
    inputs = simulated_inputs(recipe)
    given = Inputs(image=inputs.image, waveform=voice(30), prompt=inputs.prompt)
    whole = replace(recipe.deployment, audio_window_seconds=0)
    at_once = replace(recipe, clip=avatar.system.recipe.clip, deployment=whole)
    features = [encode(each.system, each.tokenizer, given)[0].audio_BAEJ for each in (avatar, open_avatar(at_once))]
    assert torch.equal(*features)


def test_a_window_of_nothing_but_overlap_is_refused():
    with pytest.raises(InvalidRecipe, match="audio_window_seconds 10 is less than 20"):
        Deployment(audio_window_seconds=10)
