"""The tier's own cards: a process a card, NCCL between them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liveavatar_core.hardware.nvml import CardState, DriverState, read_driver
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import Case, Tier
from suites.harness.hardware.lease import leased
from suites.harness.hardware.on_cards import Placement, run_on_cards
from suites.harness.pytest_plugin.clip_clock import ClipClock, untimed
from suites.harness.records.record import RunRecord


class PhysicalMode:
    """Runs a tier on the cards that it names, and on no others."""

    name = "physical"

    def __init__(self, library: Any = None, environment: Mapping[str, str] = os.environ) -> None:
        """`library`: pynvml by default. `environment`: where CUDA_VISIBLE_DEVICES is looked for."""
        self._library, self._environment = library, environment

    def why_not(self, tier: Tier) -> str | None:
        """Why not: which cards are visible, against those that the tier takes. None if they are all there."""
        driver = self._driver()
        if "driver" in driver.missing:
            return f"no NVIDIA driver answers ({driver.missing['driver']})"
        here = len(matching(driver, tier))
        if here >= tier.cards:
            return None
        return f"{tier.cards} x {tier.card_model.driver_name} are needed; visible: {visible(driver)}"

    def run(self, tier: Tier, case: Case, folder: Path, clock: ClipClock = untimed) -> RunRecord:
        """Run every rank on a card of its own; seconds may be compared."""
        driver, placement = self._driver(), Placement(backend="nccl", capped=False, ranks_a_card=1)
        lease = leased(matching(driver, tier), tier.cards, read=lambda: matching(self._driver(), tier))
        plan = RunPlan.full_size(tier, case, "physical", folder)
        return run_on_cards(plan, clock, lease=lease, placement=placement, driver=driver)

    def _driver(self) -> DriverState:
        return read_driver(self._library, self._environment)


def matching(driver: DriverState, tier: Tier) -> tuple[CardState, ...]:
    """The visible cards that are exactly the tier's."""
    return tuple(card for card in driver.cards if card.name == tier.card_model.driver_name)


def visible(driver: DriverState) -> str:
    """The visible cards in words, equal ones counted."""
    names = Counter(card.name or "a card without a name" for card in driver.cards)
    return ", ".join(f"{count} x {name}" for name, count in names.items()) or "none"
