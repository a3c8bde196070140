"""Rules that take real processes: what they hold and what they make. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from liveavatar_core.config import Recipe
from suites.fuzz.case import FuzzCase
from suites.fuzz.models import alone, avatar_sized, exact, small
from suites.fuzz.quality_limits import floors, too_bad
from suites.fuzz.ranks import Made, current_pool
from suites.harness.probes.video.measured_video import MeasuredVideo
from suites.harness.probes.video.quality import quality_of
from suites.harness.processes.rank_group import GroupError

CLOSE = 1e-5
"""Latents in float32 that differ by the order of sums alone, over two clips."""
SEEDS_APART = 0.5
"""Latents of two seeds, whose deviation is about 1, differ by more than this somewhere."""


class Broken(AssertionError):
    """A rule does not hold; the text is what was found against what is allowed."""


@contextmanager
def _ranks_work() -> Iterator[None]:
    """A valid recipe runs: any failure of a rank breaks the rule."""
    try:
        yield
    except GroupError as error:
        raise Broken(f"a valid recipe failed: {error}") from error


def check_tracker(case: FuzzCase) -> float:
    """Real ranks hold what simulated ones do, in each phase and category, and make the frames that were asked for."""
    from suites.fuzz.prediction import predict_every_rank  # imported here: it takes torch

    recipe = small(case.recipe)
    with _ranks_work():
        made = current_pool().make(recipe)
    _check_frames(recipe, made)
    fullest = 0
    for rank, (really, predicted) in enumerate(zip(made.memory, predict_every_rank(recipe), strict=True)):
        if really != predicted:
            raise Broken(f"rank {rank}: {first_difference(really, predicted)}")
        fullest = max([fullest, *(sum(held.values()) for held in really.values())])
    return fullest


def first_difference(really: dict[str, dict[str, int]], predicted: dict[str, dict[str, int]]) -> str:
    """Where two accounts of bytes, by phase and category, first differ, in words."""
    for phase in {**really, **predicted}:
        held, expected = really.get(phase, {}), predicted.get(phase, {})
        for category in {**held, **expected}:
            if held.get(category) != expected.get(category):
                return f"{phase}, {category}: held {held.get(category)} bytes, predicted {expected.get(category)}"
    return "phases come in another order"


def _check_frames(recipe: Recipe, made: Made) -> None:
    """Raise Broken unless there are as many frames as asked for, and each is what a picture can be."""
    clip = recipe.clip
    expected = clip.num_clip * clip.infer_frames - clip.quirks.first_frames_dropped
    if len(made.frames) != expected:
        raise Broken(f"{len(made.frames)} frames, {expected} asked for")
    if not all(np.isfinite(block).all() for block in made.latents):
        raise Broken("latents that are no numbers")


def check_video(case: FuzzCase) -> float:
    """The video in float32 is the one that a plain loop in one process makes."""
    recipe = exact(small(case.recipe))
    with _ranks_work():
        made = current_pool().make(recipe)
        expected = current_pool().make(alone(recipe), by_hand=recipe.clip.quirks.streaming_decode)
    _check_frames(recipe, made)
    ours, theirs = (np.concatenate([block.ravel() for block in video.latents]) for video in (made, expected))
    if ours.shape != theirs.shape:
        raise Broken(f"{ours.size} values of latents, {theirs.size} expected")
    away = float(np.abs(ours - theirs).max())
    if away > CLOSE:
        raise Broken(f"latents differ from those of one process by {away:.2g}, at most {CLOSE:g} allowed")
    levels = int(np.abs(made.frames.astype(int) - expected.frames).max())
    if levels > 1:
        raise Broken(f"frames differ from those of one process by {levels} levels, at most 1 allowed")
    return 0


def check_seed(case: FuzzCase) -> float:
    """Two runs of a recipe make the same bits; another seed makes something else, in one process."""
    recipe = small(case.recipe)
    other = replace(recipe, clip=replace(recipe.clip, base_seed=recipe.clip.base_seed + 1))
    with _ranks_work():
        first, second, third = (current_pool().make(each) for each in (recipe, recipe, alone(other)))
    if not all(np.array_equal(one, two) for one, two in zip(first.latents, second.latents, strict=True)):
        raise Broken("the same seed gave other latents")
    if not np.array_equal(first.frames, second.frames):
        raise Broken("the same seed gave other frames")
    if all(np.allclose(one, two, atol=SEEDS_APART) for one, two in zip(first.latents, third.latents, strict=True)):
        raise Broken(f"seeds {recipe.clip.base_seed} and {other.clip.base_seed} gave the same latents")
    return 0


def check_quality(case: FuzzCase) -> float:
    """The tiny avatar's video is as near to that of one process in float32, and as good by itself, as baselines ask."""
    recipe = avatar_sized(case.recipe)
    with _ranks_work():
        video, reference = (_video(current_pool().make(each)) for each in (recipe, exact(alone(recipe))))
    found = quality_of(video, reference, recipe.clip.infer_frames)
    if bad := list(too_bad(found.values, floors(recipe.deployment))):
        raise Broken("; ".join(bad))
    return 0


def _video(made: Made) -> MeasuredVideo:
    nan_blocks = sum(not np.isfinite(block).all() for block in made.latents)
    latents = np.concatenate(made.latents, axis=2)
    return MeasuredVideo(frames=made.frames, sound=made.sound, latents=latents, nan_blocks=nan_blocks)
