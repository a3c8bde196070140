"""The 14B, simulated whole: a card holds as much for 30 clips as for 3."""

from __future__ import annotations

from dataclasses import replace

import pytest

from liveavatar_core.recipes import named_recipe
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank
from liveavatar_core.simulation.memory_account import Capacity


def simulated(name: str, cards: int, clips: int) -> SimulatedRank:
    recipe = named_recipe(name, cards)
    return simulate_rank(replace(recipe, clip=replace(recipe.clip, num_clip=clips)), 0, Capacity())


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "cards"), [("single", 1), ("published_sharded", 5)])
def test_thirty_clips_hold_no_more_than_three(name: str, cards: int):
    few, many = simulated(name, cards, 3), simulated(name, cards, 30)
    assert many.clips == 30
    for phase, peak in few.peaks.items():
        assert (peak.allocated, peak.by_category) == (many.peaks[phase].allocated, many.peaks[phase].by_category)
