"""The shortcut: repeating what identical units did gives what executing everything gives, byte for byte."""

from dataclasses import replace

import pytest

from liveavatar_core.config import Recipe
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.simulation.card_memory import CardMemory
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank
from liveavatar_core.simulation.memory_account import Capacity

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
    (repeated, shown), (executed, seen) = (
        _simulated(recipe, rank, capacity, everything=everything) for everything in (False, True)
    )
    assert repeated.units_repeated > executed.units_repeated == 0
    assert (repeated.peaks, repeated.work, repeated.clips) == (executed.peaks, executed.work, executed.clips)
    assert shown.reserved == seen.reserved
    assert _failure(repeated) == _failure(executed)
    return repeated


def _simulated(recipe: Recipe, rank: int, capacity: Capacity, *, everything: bool) -> tuple[SimulatedRank, CardMemory]:
    trace = CardMemory(capacity.card)
    return simulate_rank(recipe, rank, capacity, execute_everything=everything, trace=trace), trace


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
    short = Capacity(card=int(share * peak) - 512)
    assert isinstance(assert_same(recipe, 0, short).out_of_memory, OutOfMemory)


def test_nobody_listening_changes_nothing() -> None:
    recipe = with_clips(few_layers(named_recipe("block_offload", 1)), 2)
    listened = simulate_rank(recipe, 0, Capacity(), trace=CardMemory())
    assert listened == simulate_rank(recipe, 0, Capacity())


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "cards", "rank"), FULL)
def test_it_gives_the_same_at_full_size(name: str, cards: int, rank: int) -> None:
    assert_same(with_clips(named_recipe(name, cards), 2), rank, Capacity())
