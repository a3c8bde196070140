"""Any number of clips: a card holds as much for a thousand as for three, and a simulation takes no longer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from liveavatar_core.config import Recipe
from liveavatar_core.parallel.ranks import distinct_ranks
from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.simulation import estimate
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank
from liveavatar_core.simulation.memory_account import UNLIMITED, Capacity
from liveavatar_core.workload import LEAST_CLIPS, MANY_CLIPS
from suites.harness.cases.tiers import Tier, read_tiers

TIERS = read_tiers()
PASSING = [
    (tier.name, case.name, rank)
    for tier in TIERS.values()
    for case in tier.cases
    if tier.name.startswith("gpu") and case.expect.outcome == "pass"
    for rank in distinct_ranks(tier.layout(case).deployment)
]
SMALL = [
    ("fp8", 1, 0),
    ("published_replicated", 4, 3),
    ("timestep_pipeline", 5, 1),
    pytest.param("published_sharded", 5, 0, marks=pytest.mark.nightly),
    pytest.param("fp8_ulysses", 4, 0, marks=pytest.mark.nightly),
    pytest.param("block_offload", 1, 0, marks=pytest.mark.nightly),
]


def nightly(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.nightly) for name in names]


def of_clips(recipe: Recipe, num_clip: int) -> Recipe:
    return replace(recipe, clip=replace(recipe.clip, num_clip=num_clip))


def small(name: str, cards: int) -> Recipe:
    """A few layers, two blocks a clip, and a voice in windows of 20 s."""
    recipe = miniature(named_recipe(name, cards))
    steps = recipe.clip.sample_steps if recipe.deployment.timestep_pipeline else 2
    recipe = replace(recipe, clip=replace(recipe.clip, infer_frames=24, sample_steps=steps))
    transformer = replace(recipe.model.transformer, num_layers=5, audio_inject_layers=(0, 2))
    text_encoder = replace(recipe.model.text_encoder, num_layers=2)
    deployment = replace(recipe.deployment, audio_window_seconds=20)
    model = replace(recipe.model, transformer=transformer, text_encoder=text_encoder)
    return replace(recipe, model=model, deployment=deployment)


def assert_same(recipe: Recipe, rank: int, executed: SimulatedRank, capacity: Capacity = UNLIMITED) -> SimulatedRank:
    """Of leaving clips out and of `executed`, which leaves out none; returns the former."""
    left_out = simulate_rank(recipe, rank, capacity)
    assert executed.clips_left_out == 0
    for name in ("peaks", "reserved_peaks", "allocator", "clips", "work", "first_clip_work", "last_clip_work"):
        assert getattr(left_out, name) == getattr(executed, name), name
    return left_out


def simulate_each_clip(
    monkeypatch: pytest.MonkeyPatch, recipe: Recipe, rank: int, capacity: Capacity = UNLIMITED
) -> SimulatedRank:
    with monkeypatch.context() as patch:
        patch.setattr(estimate, "FEWEST_CLIPS", 10**9)
        return simulate_rank(recipe, rank, capacity)


@pytest.mark.parametrize(("name", "cards", "rank"), SMALL)
def test_clips_that_are_left_out_count_as_if_they_were_made(
    name: str, cards: int, rank: int, monkeypatch: pytest.MonkeyPatch
):
    recipe = of_clips(small(name, cards), 20)
    each = simulate_each_clip(monkeypatch, recipe, rank)
    result = assert_same(recipe, rank, each)
    assert result.clips == 20
    assert result.clips_left_out >= 4
    assert result.units_executed + result.units_repeated == each.units_executed + each.units_repeated


@pytest.mark.parametrize("name", ["fp8_ulysses", *nightly("published_sharded", "text_on_decode_rank")])
def test_executing_everything_gives_the_same(name: str):
    recipe = of_clips(small(name, 4), 12)
    everything = simulate_rank(recipe, 0, UNLIMITED, execute_everything=True)
    assert assert_same(recipe, 0, everything).clips_left_out


@pytest.mark.parametrize(
    ("below_mib", "expandable"),
    [(2, False), (16, True), *(pytest.param(*each, marks=pytest.mark.nightly) for each in ((2, True), (16, False)))],
)
def test_so_do_clips_in_which_the_allocator_gives_segments_back(
    below_mib: int, expandable: bool, monkeypatch: pytest.MonkeyPatch
):
    recipe = of_clips(small("published_sharded", 4), 20)
    recipe = replace(recipe, deployment=replace(recipe.deployment, expandable_segments=expandable))
    needed = simulate_rank(recipe, 0, UNLIMITED).allocator.reserved_peak_bytes
    capacity = Capacity(card=needed - below_mib * 2**20)
    result = assert_same(recipe, 0, simulate_each_clip(monkeypatch, recipe, 0, capacity), capacity)
    assert result.allocator.outcome == "fits with retries"
    assert result.clips_left_out


def peaks_of(result: SimulatedRank) -> dict[str, Any]:
    return {phase: (peak.allocated, peak.by_category) for phase, peak in result.peaks.items() if phase != "encode"}


def assert_flat(tier: Tier, name: str, rank: int):
    """Of few clips and of a thousand, whose voice takes forty windows."""
    recipe = tier.recipe(tier.case(name))
    capacity = Capacity(card=tier.card_model.usable_bytes_in(recipe.deployment))
    few, many = (simulate_rank(of_clips(recipe, clips), rank, capacity) for clips in (LEAST_CLIPS, MANY_CLIPS))
    assert (many.out_of_memory, many.clips) == (None, MANY_CLIPS)
    assert peaks_of(many) == peaks_of(few)
    assert many.peak_bytes == few.peak_bytes
    assert many.last_clip_work == few.last_clip_work
    assert many.work.total() < MANY_CLIPS / LEAST_CLIPS * few.work.total()
    assert many.allocator.retries <= MANY_CLIPS / LEAST_CLIPS * few.allocator.retries
    assert many.clips - many.clips_left_out < 60


@pytest.mark.parametrize(("cards", "name"), [("gpu5x24", "published_sharded"), ("gpu4x24", "fp8_ulysses")])
def test_a_card_holds_no_more_for_a_thousand_clips(cards: str, name: str):
    assert_flat(TIERS[cards], name, 0)


@pytest.mark.nightly
@pytest.mark.parametrize(("cards", "name", "rank"), PASSING)
def test_nor_does_it_on_any_tier(cards: str, name: str, rank: int):
    assert_flat(TIERS[cards], name, rank)
