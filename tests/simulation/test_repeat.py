"""The shortcut: repeating what identical units did gives what executing everything gives, byte for byte."""

from dataclasses import replace

import pytest

from liveavatar_core.config import Recipe
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.simulation.memory_timeline import TimelineBuilder

SMALL = [
    ("published_sharded", 5, 0),
    ("published_replicated", 4, 0),
    ("published_replicated", 4, 3),
    ("single", 1, 0),
    ("block_offload", 1, 0),
]

FULL = [("published_sharded", 5, 0), ("published_replicated", 5, 4), ("single", 1, 0), ("block_offload", 1, 0)]


def with_clips(recipe: Recipe, num_clip: int) -> Recipe:
    return replace(recipe, clip=replace(recipe.clip, num_clip=num_clip))


def few_layers(recipe: Recipe) -> Recipe:
    """Few, but enough that blocks follow blocks, and blocks injectors, more than twice. Of frames two blocks a clip."""
    recipe = miniature(recipe)
    recipe = replace(recipe, clip=replace(recipe.clip, infer_frames=24, sample_steps=2))
    transformer = replace(recipe.model.transformer, num_layers=9, audio_inject_layers=(0, 3, 6))
    text_encoder = replace(recipe.model.text_encoder, num_layers=4)
    return replace(recipe, model=replace(recipe.model, transformer=transformer, text_encoder=text_encoder))


def assert_same(recipe: Recipe, rank: int, capacity: Capacity) -> SimulatedRank:
    """Of repeating and executing everything, and that the one repeated and the other did not. Returns the former."""
    repeated, executed = (
        simulate_rank(recipe, rank, capacity, execute_everything=everything) for everything in (False, True)
    )
    assert repeated.units_repeated > executed.units_repeated == 0
    assert (repeated.peaks, repeated.work, repeated.clips) == (executed.peaks, executed.work, executed.clips)
    assert (repeated.reserved_peaks, repeated.allocator) == (executed.reserved_peaks, executed.allocator)
    assert _failure(repeated) == _failure(executed)
    return repeated


def _failure(result: SimulatedRank) -> dict[str, object] | None:
    return None if result.out_of_memory is None else vars(result.out_of_memory)


@pytest.mark.parametrize(("name", "cards", "rank"), SMALL)
def test_it_gives_what_executing_everything_gives(name: str, cards: int, rank: int) -> None:
    result = assert_same(with_clips(few_layers(named_recipe(name, cards)), 2), rank, Capacity())
    assert result.units_repeated > result.units_executed


@pytest.mark.parametrize("share", [1.0, pytest.param(0.98, marks=pytest.mark.nightly)])
def test_it_runs_out_of_memory_at_the_same_request(share: float) -> None:
    """Of the very last request that is missing, and earlier."""
    recipe = few_layers(named_recipe("published_sharded", 4))
    peak = max(peak.allocated for peak in simulate_rank(recipe, 0, Capacity()).peaks.values())
    short = Capacity(card=int(share * peak) - 512, segments=False)
    assert isinstance(assert_same(recipe, 0, short).out_of_memory, OutOfMemory)


@pytest.mark.parametrize("below", [0, 16, pytest.param(40, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("expandable", [False, True])
def test_its_allocator_finds_room_or_none_at_the_same_request(below: int, expandable: bool) -> None:
    """With all the segments that it would take, or with fewer: it gives some back, and at last finds no room."""
    recipe = with_clips(few_layers(named_recipe("published_sharded", 4)), 2)
    recipe = replace(recipe, deployment=replace(recipe.deployment, expandable_segments=expandable))
    needed = simulate_rank(recipe, 0, Capacity()).allocator.reserved_peak_bytes
    result = assert_same(recipe, 0, Capacity(card=needed - below * 2**20))
    assert (result.allocator.outcome == "fits") == (below == 0)


def test_nobody_listening_changes_nothing() -> None:
    recipe = with_clips(few_layers(named_recipe("block_offload", 1)), 2)
    listened = simulate_rank(recipe, 0, Capacity(), trace=TimelineBuilder())
    assert listened == simulate_rank(recipe, 0, Capacity())


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "cards", "rank"), FULL)
def test_it_gives_the_same_at_full_size(name: str, cards: int, rank: int) -> None:
    assert_same(with_clips(named_recipe(name, cards), 2), rank, Capacity())
