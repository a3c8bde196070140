"""The shortcut: repeating what identical units did gives what executing everything gives, byte for byte."""

from dataclasses import replace

import pytest

from liveavatar_core.config import Recipe
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.simulation.ledger import Capacity
from liveavatar_core.simulation.run import SimulatedRank, simulate_rank

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
    """Few, but enough that blocks follow blocks, and blocks injectors, more than twice."""
    recipe = miniature(recipe)
    transformer = replace(recipe.model.transformer, num_layers=9, audio_inject_layers=(0, 3, 6))
    text_encoder = replace(recipe.model.text_encoder, num_layers=4)
    return replace(recipe, model=replace(recipe.model, transformer=transformer, text_encoder=text_encoder))


def assert_same(repeated: SimulatedRank, executed: SimulatedRank) -> None:
    assert repeated.peaks == executed.peaks
    assert repeated.work == executed.work
    assert repeated.clips == executed.clips
    assert repeated.reserved == executed.reserved


@pytest.mark.parametrize(("name", "cards", "rank"), SMALL)
def test_it_gives_what_executing_everything_gives(name: str, cards: int, rank: int) -> None:
    recipe = with_clips(few_layers(named_recipe(name, cards)), 2)
    repeated = simulate_rank(recipe, rank, Capacity())
    assert repeated.units_repeated > repeated.units_executed
    executed = simulate_rank(recipe, rank, Capacity(), execute_everything=True)
    assert executed.units_repeated == 0
    assert_same(repeated, executed)


def test_it_runs_out_of_memory_at_the_same_request() -> None:
    recipe = few_layers(named_recipe("published_sharded", 4))
    peak = max(peak.allocated for peak in simulate_rank(recipe, 0, Capacity()).peaks.values())
    for missing in (512, peak // 50):
        capacity = Capacity(card=peak - missing)
        repeated, executed = (
            simulate_rank(recipe, 0, capacity, execute_everything=everything) for everything in (False, True)
        )
        assert isinstance(repeated.out_of_memory, OutOfMemory)
        assert isinstance(executed.out_of_memory, OutOfMemory)
        assert vars(repeated.out_of_memory) == vars(executed.out_of_memory)
        assert_same(repeated, executed)


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "cards", "rank"), FULL)
def test_it_gives_the_same_at_full_size(name: str, cards: int, rank: int) -> None:
    recipe = with_clips(named_recipe(name, cards), 2)
    executed = simulate_rank(recipe, rank, Capacity(), execute_everything=True)
    assert_same(simulate_rank(recipe, rank, Capacity()), executed)
