"""What a tier does to a card's memory, replayed on torch's own allocator: it reserves what its model says, to the byte.

Takes seconds on a card, and nothing is computed there. Flat sharding is left out: when a stream has passed what it
still works with is up to the card.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch

from liveavatar_core.config import Recipe
from liveavatar_core.hardware.cards import find_card
from liveavatar_core.recipes import named_recipe
from liveavatar_core.simulation.alloc_events import Event, ReplayedCall
from liveavatar_core.simulation.allocator import CachingAllocator
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.expandable import ExpandableAllocator
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.torch_private import set_allocator

CARD = find_card("RTX 4090")
TIERS = [("published_sharded", 5), ("fp8_ulysses", 4), ("fp8_offload", 1), ("block_offload", 1)]


class Recorded:
    """Every allocation and free on the card, those of repeated calls one by one."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_repeated(self, call: ReplayedCall) -> None:
        left = -1 if call.leftover is None else call.leftover
        self.events += call.program.flat(call.first, left)


def recorded(recipe: Recipe) -> list[Event]:
    """What rank 0 does to a card."""
    found = Recorded()
    simulate_rank(recipe, 0, Capacity(), trace=found)
    return [event for event in found.events if event.allocation.place == "card"]


def of_tier(name: str, cards: int, *, expandable: bool = False) -> Recipe:
    recipe = named_recipe(name, cards)
    return replace(recipe, deployment=replace(recipe.deployment, expandable_segments=expandable))


@pytest.mark.parametrize(("name", "cards"), [("published_sharded", 5), ("block_offload", 1)])
def test_a_recorded_sequence_reserves_what_the_simulation_says(name: str, cards: int) -> None:
    """So that what is replayed on a card below is what the verdict was made of."""
    recipe = of_tier(name, cards)
    allocator = CachingAllocator(CARD.usable_bytes)
    for event in recorded(recipe):
        allocation = event.allocation
        if event.allocates:
            allocator.allocate(allocation.number, allocation.size, "run", allocation.stream)
        else:
            allocator.free(allocation.number, lingers=event.lingers)
    verdict = simulate_rank(recipe, 0, Capacity(card=CARD.usable_bytes)).allocator
    assert (max(allocator.result.peaks.values()), allocator.result.retries) == (
        verdict.reserved_peak_bytes,
        verdict.retries,
    )
    streams = {event.allocation.stream for event in recorded(recipe)}
    assert (len(streams) > 1) == (recipe.deployment.shard == "per_parameter"), "gathers have streams of their own"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")
@pytest.mark.parametrize("expandable", [False, True])
@pytest.mark.parametrize(("name", "cards"), TIERS)
def test_a_card_reserves_the_same(name: str, cards: int, expandable: bool) -> None:
    """In a process of its own, as what was reserved before would count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(difference_on_card, of_tier(name, cards, expandable=expandable)).result() is None


def difference_on_card(recipe: Recipe) -> str | None:
    """Where torch's allocator and its model part; None: nowhere.

    The limit is imposed on segments of fixed size alone: torch compares it with what is asked for, not with the pages
    that a segment lacks, where a card that is full counts those.
    """
    total = torch.cuda.get_device_properties(0).total_memory
    model: CachingAllocator = CachingAllocator(CARD.usable_bytes)
    if recipe.deployment.expandable_segments:
        model = ExpandableAllocator()
        set_allocator("expandable_segments:True")
    else:
        torch.cuda.set_per_process_memory_fraction(CARD.usable_bytes / total)
    said = (0, 0)
    for at, now in enumerate(_replayed(recorded(recipe), model)):
        if now == said and at % 1000:  # asking the card takes longer than all else; what parted stays apart
            continue
        said = now
        reserved = torch.cuda.memory_reserved(), torch.cuda.memory_stats()["num_alloc_retries"]
        if said != reserved:
            return f"after {at} events the model reserves {said[0]} bytes, {said[1]} retries; the card {reserved}"
    return None


def _replayed(events: list[Event], model: CachingAllocator) -> Iterator[tuple[int, int]]:
    """Bytes reserved and retries after each event, as the model says; the card's allocator has seen the same."""
    pointers: dict[int, int] = {}
    streams = {0: torch.cuda.current_stream()}
    for event in events:
        number, size, _, _, stream = event.allocation
        if event.allocates:
            model.allocate(number, size, "run", stream)
            if stream not in streams:
                streams[stream] = torch.cuda.Stream()
            pointers[number] = torch.cuda.caching_allocator_alloc(size, 0, streams[stream])
        else:
            model.free(number)
            torch.cuda.caching_allocator_delete(pointers.pop(number))
        yield model.reserved, model.result.retries
