"""Cards of the tier's size: a process a card, NCCL between them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from liveavatar_core.errors import GIB, InvalidRecipe
from liveavatar_core.hardware.cards import Card, find_card_by_driver_name
from liveavatar_core.hardware.nvml import CardState, DriverState, read_driver
from liveavatar_core.parallel.card_support import check_described
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import Case, Tier
from suites.harness.hardware.lease import leased
from suites.harness.hardware.on_cards import Placement, run_on_cards
from suites.harness.pytest_plugin.clip_clock import ClipClock, untimed
from suites.harness.records.record import RunRecord


class PhysicalMode:
    """Runs a tier on cards of its size, all of one model, and on no others."""

    name = "physical"

    def __init__(self, library: Any = None, environment: Mapping[str, str] = os.environ) -> None:
        """`library`: pynvml by default. `environment`: where CUDA_VISIBLE_DEVICES is looked for."""
        self._library, self._environment = library, environment

    def why_not(self, tier: Tier) -> str | None:
        """Why not: which cards are visible, against those that the tier takes. None if they are all there."""
        driver = self._driver()
        if "driver" in driver.missing:
            return f"no NVIDIA driver answers ({driver.missing['driver']})"
        if len(matching(driver, tier)) >= tier.cards:
            return None
        needed = f"{tier.cards} x {tier.size}" + (" of one model are needed" if tier.cards > 1 else " is needed")
        return f"{needed}; visible: {visible(driver)}{_almost(driver, tier)}"

    def unsupported(self, tier: Tier, case: Case) -> str | None:
        """What the cards' data sheet lacks of what `case` asks for; None if it has everything."""
        own = on_cards_of(tier, matching(self._driver(), tier))
        return lacking(own, case, own.card_model)

    def run(self, tier: Tier, case: Case, folder: Path, clock: ClipClock = untimed) -> RunRecord:
        """Run every rank on a card of its own, under the limit of just these cards; seconds may be compared."""
        driver, placement = self._driver(), Placement(backend="nccl", capped=False, ranks_a_card=1)
        cards = matching(driver, tier)
        own = on_cards_of(tier, cards)
        lease = leased(cards, tier.cards, read=lambda: matching(self._driver(), tier))
        plan = RunPlan.full_size(own, case, "physical", folder)
        return run_on_cards(plan, clock, lease=lease, placement=placement, driver=driver)

    def _driver(self) -> DriverState:
        return read_driver(self._library, self._environment)


def matching(driver: DriverState, tier: Tier) -> tuple[CardState, ...]:
    """The visible cards that a tier runs on: of its cards' memory size, all of one model, described in cards.toml.

    Of several models it is the tier's own if there are enough of it, else the one of which most are there.
    """
    models: dict[str, list[CardState]] = {}
    for card in driver.cards:
        if (known := _described(card)) is not None and known.capacity_gib == tier.card_model.capacity_gib:
            models.setdefault(known.driver_name, []).append(card)
    own = models.get(tier.card_model.driver_name, [])
    most = max(models.values(), key=len, default=[])
    return tuple(own if len(own) >= tier.cards else most)


def on_cards_of(tier: Tier, cards: Sequence[CardState]) -> Tier:
    """`tier` as it stands on just these cards: their limits and links in place of those of the card that it states."""
    known = _described(cards[0]) if cards else None
    return tier if known is None else replace(tier, card=known.name)


def lacking(tier: Tier, case: Case, card: Card | None) -> str | None:
    """What `card` cannot compute of `case`, and the next step; None: nothing, or its data sheet is not known."""
    try:
        if card is not None:
            check_described(tier.layout(case).deployment, card)
    except InvalidRecipe as error:
        return str(error)
    return None


def visible(driver: DriverState) -> str:
    """The visible cards in words, equal ones counted."""
    names = Counter((card.name or "a card without a name") + _lost(card) for card in driver.cards)
    return ", ".join(f"{count} x {name}" for name, count in names.items()) or "none"


def _lost(card: CardState) -> str:
    return "" if card.total_bytes is not None else f" ({card.missing.get('memory', 'unreadable')})"


def _described(card: CardState) -> Card | None:
    """What cards.toml has of it; nothing of a card that is lost, which tells its name and no more."""
    return find_card_by_driver_name(card.name) if card.name and card.total_bytes is not None else None


def _almost(driver: DriverState, tier: Tier) -> str:
    """Why cards of that size do not do: they are of several models, or nobody has described them."""
    size = tier.card_model.capacity_gib
    known = {each.driver_name for card in driver.cards if (each := _described(card)) and each.capacity_gib == size}
    strange = {
        card.name
        for card in driver.cards
        if card.name and not _described(card) and " MIG" not in card.name and _has_size(card, size)
    }
    mixed = "; ranks of different models would wait for the slowest, so they do not run together"
    undescribed = f"; {', '.join(sorted(strange))}: not described in cards.toml (docs/architecture.md, A card)"
    return (mixed if len(known) > 1 else "") + (undescribed if strange else "")


def _has_size(card: CardState, size_gib: float) -> bool:
    """Drivers show somewhat less than a card is sold as: 22.5 to 24.0 GiB of 24."""
    return 0.92 * size_gib <= (card.total_bytes or 0) / GIB <= size_gib
