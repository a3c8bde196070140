"""A recipe is simulated once for each rank that differs, and no further than to the first that does not fit."""

from __future__ import annotations

from dataclasses import replace

from liveavatar_core.parallel.ranks import distinct_ranks
from liveavatar_core.recipes import TINY, named_recipe
from liveavatar_core.simulation.distinct_ranks import simulate_distinct_ranks
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.memory_account import Capacity

RECIPE = replace(named_recipe("published_replicated", 5), model=TINY)


def test_every_role_is_simulated_and_stands_for_its_ranks() -> None:
    simulated = simulate_distinct_ranks(RECIPE, Capacity())
    assert simulated.out_of_memory is None
    assert [made.rank for made in simulated.ranks] == [0, 4]
    assert simulated.alike == distinct_ranks(RECIPE.deployment) == {0: (0, 1, 2, 3), 4: (4,)}
    alone = simulate_rank(RECIPE, 4, Capacity())
    assert simulated.ranks[1].peaks == alone.peaks
    assert simulated.peak_bytes == alone.peak_bytes == max(made.peak_bytes for made in simulated.ranks)


def test_it_stops_at_the_first_rank_that_runs_out() -> None:
    simulated = simulate_distinct_ranks(RECIPE, Capacity(card=2**20))
    assert [made.rank for made in simulated.ranks] == [0]
    assert simulated.out_of_memory is not None
    assert simulated.out_of_memory.shortage.rank == 0
