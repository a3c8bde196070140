"""Videos without end: memory does not grow with them, they end with the voice, and the seed alone decides them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from deployments import small
from PIL import Image
from torch import Tensor

from liveavatar_core.config import Quirks, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.load import seeded_weights
from liveavatar_core.parallel.world import World
from liveavatar_core.pipeline import FrameBlock, Inputs, load_avatar, open_avatar
from liveavatar_core.pipeline.denoising import BlockDenoiser
from liveavatar_core.recipes import named_recipe
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.memory_account import Capacity, PhasePeak
from liveavatar_core.simulation.memory_tracker import MemoryTracker
from liveavatar_core.video_geometry import num_clips_in

ALONE = Deployment()
SHORT = {"infer_frames": 12, "sample_steps": 2}


def inputs(seconds: float) -> Inputs:
    """A portrait with an edge in it, and a voice of some length."""
    pixels = np.full((96, 80, 3), 128, np.uint8)
    pixels[:48] = (200, 150, 120)
    waveform = np.random.default_rng(0).normal(scale=0.1, size=int(seconds * 16_000))
    return Inputs(image=Image.fromarray(pixels), waveform=waveform.astype(np.float32), prompt="a person talks")


def frames_of(blocks: Iterator[FrameBlock]) -> np.ndarray:
    return np.concatenate([block.frames_JHWC.numpy() for block in blocks if block.frames_JHWC is not None])


def video(recipe: Recipe, given: Inputs) -> np.ndarray:
    avatar = open_avatar(recipe)
    return frames_of(avatar.generate(given))


def tracker_of(recipe: Recipe, given: Inputs) -> MemoryTracker:
    """What really making the video held."""
    tracker, world = MemoryTracker(), World(rank=0, size=1, role="whole", memory=Memory(card=torch.device("cpu")))
    weights = seeded_weights(recipe)
    with tracker:
        for _ in load_avatar(recipe, world, weights).generate(given):
            pass
    return tracker


def peaks_of(clips: int, given: Inputs, **clip: Any) -> dict[str, tuple[int, dict[str, int]]]:
    tracker = tracker_of(small(ALONE, **SHORT, num_clip=clips, **clip), given)
    return on_card(tracker.peaks)


def on_card(peaks: dict[str, PhasePeak]) -> dict[str, tuple[int, dict[str, int]]]:
    """Without host memory, which holds the audio features of the whole video."""
    return {phase: (peak.allocated, peak.by_category) for phase, peak in peaks.items()}


def test_twelve_clips_hold_no_more_than_three():
    given = inputs(12 * 0.48)
    assert peaks_of(3, given) == peaks_of(12, given)


def test_without_online_decode_all_latents_are_kept():
    given = inputs(12 * 0.48)
    few, many = (peaks_of(clips, given, enable_online_decode=False)["denoise"][0] for clips in (3, 12))
    latents = 3 * 16 * 8 * 8 * 4
    assert many - few >= 8 * latents


def test_simulated_at_full_width_thirty_clips_hold_no_more_than_three():
    """Four layers of forty; tests/simulation/test_many_clips.py has all of them."""
    recipe = named_recipe("single", 1)
    transformer = replace(recipe.model.transformer, num_layers=4, audio_inject_layers=(0, 2))
    encoder = replace(recipe.model.text_encoder, num_layers=4)
    model = replace(recipe.model, transformer=transformer, text_encoder=encoder)
    few, many = (
        simulate_rank(replace(recipe, model=model, clip=replace(recipe.clip, num_clip=clips)), 0, Capacity())
        for clips in (3, 30)
    )
    assert many.clips == 30
    assert on_card(few.peaks) == on_card(many.peaks)


def test_the_video_ends_with_the_voice():
    given = inputs(1.0)
    recipe = small(ALONE, **SHORT, num_clip=1000)
    clips = num_clips_in(len(given.waveform), 12)
    assert 2 <= clips < 10
    assert len(video(recipe, given)) == clips * 12


@pytest.mark.parametrize("infer_frames", [32, 48, 80])
def test_published_lengths_of_a_clip(infer_frames: int):
    """32 and 80 frames are no whole number of blocks: the last one is shorter."""
    recipe = small(ALONE, infer_frames=infer_frames, sample_steps=1, num_clip=1)
    assert len(video(recipe, inputs(infer_frames / 25))) == infer_frames


def test_the_seed_alone_decides():
    recipe, given = small(ALONE, **SHORT, num_clip=2), inputs(0.96)
    first, again = video(recipe, given), video(recipe, given)
    assert np.array_equal(first, again)
    weights = seeded_weights(recipe)
    other = replace(recipe, clip=replace(recipe.clip, base_seed=421))
    avatar = open_avatar(other, weights=weights)
    assert not np.array_equal(frames_of(avatar.generate(given)), first)


def test_an_avatar_makes_one_video_after_the_other():
    recipe, given = small(ALONE, **SHORT, num_clip=2), inputs(0.96)
    avatar = open_avatar(recipe)
    begun = avatar.generate(given)
    next(begun)
    begun.close()
    first = frames_of(avatar.generate(given))
    assert np.array_equal(first, frames_of(avatar.generate(given)))


def test_the_first_frames_come_before_the_second_block_is_begun(monkeypatch: pytest.MonkeyPatch):
    begun = []
    denoise = BlockDenoiser._denoise

    def counted(denoiser: BlockDenoiser, number: int, index: int) -> Tensor:
        begun.append(index)
        return denoise(denoiser, number, index)

    monkeypatch.setattr(BlockDenoiser, "_denoise", counted)
    recipe = small(ALONE, infer_frames=24, sample_steps=2, num_clip=2)
    avatar = open_avatar(recipe)
    next(avatar.generate(inputs(1.92)))
    assert begun == [0]


def test_the_picture_stays_in_step_with_the_sound():
    """A clip has as many frames as its sound lasts; the original drops three at the start."""
    given = inputs(0.96)
    dropped = small(ALONE, **SHORT, num_clip=2, quirks=Quirks(first_frames_dropped=3))
    whole = video(small(ALONE, **SHORT, num_clip=2), given)
    assert len(whole) == 24
    assert np.array_equal(video(dropped, given), whole[3:])
