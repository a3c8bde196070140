"""Whether a model fits the card sets that figures have been published for, by simulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from liveavatar_core.config import ModelParams, Recipe
from liveavatar_core.errors import GIB, InvalidRecipe
from liveavatar_core.hardware.cards import Card, find_card
from liveavatar_core.recipes import named_recipe
from liveavatar_core.workload import LEAST_CLIPS, Workload

CARD_SETS = {"4x24": ("RTX 4090", 4), "5x24": ("RTX 4090", 5), "1x80": ("A100 80GB SXM", 1)}
"""Name of the card and how many, by the name of the set."""

_RECIPES = {
    "4x24": ("published_sharded", "published_replicated", "bf16_sharded"),
    "5x24": ("published_sharded", "published_replicated"),
    "1x80": ("single",),
}


@dataclass(frozen=True, kw_only=True)
class CardSetFit:
    """What became of one recipe."""

    cards: str
    """One of CARD_SETS."""
    recipe: str
    """A named recipe."""
    usable: int
    """Bytes that tensors may take on one card."""
    peak: int | None
    """Most bytes on the fullest card; None if it did not pass."""
    verdict: str
    """`yes`, `yes, with N retries` of the card's allocator, or what was too much."""


def fits(model: ModelParams, lora_rank: int | None = None) -> Iterator[CardSetFit]:
    """Simulate the named recipes of every card set with `model`. `lora_rank`: of a LoRA that stays beside it."""
    for name, (card_name, count) in CARD_SETS.items():
        card = find_card(card_name)
        for recipe_name in _RECIPES[name]:
            peak, verdict = _try(recipe_name, count, card, model, lora_rank)
            yield CardSetFit(cards=name, recipe=recipe_name, usable=card.usable_bytes, peak=peak, verdict=verdict)


def _try(name: str, count: int, card: Card, model: ModelParams, lora_rank: int | None) -> tuple[int | None, str]:
    try:
        named = named_recipe(name, count)
        clip = replace(named.clip, num_clip=LEAST_CLIPS)
        recipe = replace(named, model=model, clip=clip, workload=Workload.largest(clip.max_area))
        if lora_rank:
            recipe = replace(recipe, deployment=replace(recipe.deployment, lora_rank=lora_rank))
    except InvalidRecipe as error:
        return None, error.what
    return _simulate(recipe, card)


def _simulate(recipe: Recipe, card: Card) -> tuple[int | None, str]:
    from liveavatar_core.simulation.distinct_ranks import simulate_distinct_ranks
    from liveavatar_core.simulation.memory_account import Capacity

    capacity = Capacity(card=card.usable_bytes_in(recipe.deployment))
    simulated = simulate_distinct_ranks(recipe, capacity)
    if (error := simulated.out_of_memory) is None:
        return simulated.peak_bytes, f"yes, with {simulated.retries} retries" if simulated.retries else "yes"
    short = error.shortage
    asked, free = (short.requested or 0) / GIB, short.free / GIB
    pieces = "" if short.reserved is None else " in pieces"
    return None, f"no: rank {short.rank}, {short.phase}, {asked:.2f} GiB asked, {free:.2f} free{pieces}"
