"""Which stream asks for what: read from the code that runs, so that pools are kept apart as on a card."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.simulation.alloc_events import Event, ReplayedCall
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.memory_account import UNLIMITED


class StreamsByCategory:
    """Listens to a tracker."""

    def __init__(self) -> None:
        self.seen: defaultdict[str, set[int]] = defaultdict(set)

    def on_event(self, event: Event) -> None:
        """Hear of an allocation or a free."""
        if event.allocates and event.allocation.place == "card":
            self.seen[event.allocation.category].add(event.allocation.stream)

    def on_repeated(self, call: ReplayedCall) -> None:
        """Hear of a call at once."""
        for event in call.program.flat():
            self.on_event(event)


def streams_of(name: str, cards: int) -> dict[str, set[int]]:
    heard = StreamsByCategory()
    recipe = miniature(named_recipe(name, cards))
    recipe = replace(recipe, clip=replace(recipe.clip, infer_frames=12, sample_steps=1))
    simulate_rank(recipe, 0, UNLIMITED, trace=heard)
    return heard.seen


@pytest.mark.parametrize("name", ["published_sharded", "published_replicated"])
def test_gathers_have_streams_of_their_own(name: str):
    seen = streams_of(name, 4)
    assert seen["unsharded_parameters"] - {0}
    assert seen["activations"] == {0}


def test_a_card_that_gathers_nothing_has_one():
    assert set().union(*streams_of("single", 1).values()) == {0}
