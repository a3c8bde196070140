"""`expandable_segments` is recommended where it makes the difference, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from liveavatar_core.cli.plan.layouts import FeasibleLayout, InfeasibleLayout, judge
from liveavatar_core.config import Recipe
from liveavatar_core.hardware.cards import find_card
from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.simulation.estimate import simulate_rank, with_expandable_segments
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.workload import Workload

CARD = find_card("RTX 4090")
MIB = 2**20


@pytest.fixture(scope="module")
def fp8_offload() -> Recipe:
    """At full size, one card: tensors would fit, their segments do not."""
    return named_recipe("fp8_offload", 1)


def with_usable(gib: float):
    return replace(CARD, visible_gib=gib + sum(CARD.overheads().values()))


def test_a_run_that_fits_with_retries_is_told_what_spares_it_them():
    """One 80 GB card, the portrait of the most tokens: 77.57 of 77.64 GiB reserved for 74.37 of tensors."""
    card, recipe = find_card("A100 80GB SXM"), named_recipe("single", 1)
    recipe = replace(recipe, workload=Workload.largest(recipe.clip.max_area))
    found = judge(recipe, card)
    assert isinstance(found, FeasibleLayout)
    assert found.retries > 0
    assert found.reserved_gib <= card.usable_gib
    assert found.next_step.startswith("--expandable_segments: fits (")
    grown = replace(recipe, deployment=replace(recipe.deployment, expandable_segments=True))
    spared = judge(grown, card)
    assert isinstance(spared, FeasibleLayout)
    assert (spared.retries, spared.next_step) == (0, "")
    assert spared.peaks_gib == found.peaks_gib, "the same tensors"


def test_it_is_recommended_where_fragmentation_alone_is_in_the_way(fp8_offload: Recipe):
    most = max(peak.allocated for peak in simulate_rank(fp8_offload, 0, Capacity()).peaks.values())
    found = judge(fp8_offload, with_usable(most / 2**30 + 0.8))
    assert isinstance(found, InfeasibleLayout)
    assert "but in pieces" in found.why
    assert found.next_step.startswith("--expandable_segments: fits")


def test_it_is_not_where_tensors_are_too_much_or_nothing_is_lost():
    recipe = miniature(named_recipe("single", 1))
    plenty, nothing = Capacity(card=1000 * MIB), Capacity(card=MIB)
    assert with_expandable_segments(recipe, simulate_rank(recipe, 0, plenty), plenty) is None
    short = simulate_rank(recipe, 0, nothing)
    assert short.allocator.outcome == "fragmentation", "a MiB is no segment"
    assert with_expandable_segments(recipe, short, nothing) is None
