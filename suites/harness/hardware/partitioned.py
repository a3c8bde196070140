"""One bigger card cut into a tier's cards: a process each, its allocator capped, gloo between them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liveavatar_core.errors import GIB
from liveavatar_core.hardware.cards import find_card_by_driver_name
from liveavatar_core.hardware.nvml import CardState, DriverState, read_driver
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import Case, Tier
from suites.harness.hardware.lease import leased
from suites.harness.hardware.on_cards import Placement, run_on_cards
from suites.harness.hardware.physical import lacking, visible
from suites.harness.pytest_plugin.clip_clock import ClipClock, untimed
from suites.harness.records.record import RunRecord

CONTEXT_BYTES = GIB
"""What a process takes of a card beside its tensors: context, libraries, workspaces. Half a GiB on current cards,
and as much again for what cuBLAS and cuDNN load when they are first used."""


class PartitionedMode:
    """Imitates a tier on a card that has room for all of it."""

    name = "partitioned"

    def __init__(self, library: Any = None, environment: Mapping[str, str] = os.environ) -> None:
        """`library`: pynvml by default. `environment`: where CUDA_VISIBLE_DEVICES is looked for."""
        self._library, self._environment = library, environment

    def why_not(self, tier: Tier) -> str | None:
        """Why not: memory needed on one card, against that of the largest visible one. None if it is enough."""
        driver = self._driver()
        if "driver" in driver.missing:
            return f"no NVIDIA driver answers ({driver.missing['driver']})"
        if large_enough(driver, tier):
            return None
        return (
            f"{tier.cards} x ({tier.limit_bytes / GIB:.2f} + {CONTEXT_BYTES / GIB:.2f} for a context) ="
            f" {needed_bytes(tier) / GIB:.2f} GiB of one card are needed; visible: {visible(driver)}, the largest of"
            f" {max((card.total_bytes or 0 for card in driver.cards), default=0) / GIB:.2f} GiB"
        )

    def unsupported(self, tier: Tier, case: Case) -> str | None:
        """What the large card, which computes, lacks of what `case` asks for; None if it has everything."""
        large = large_enough(self._driver(), tier)[0]
        return lacking(tier, case, find_card_by_driver_name(large.name or ""))

    def run(self, tier: Tier, case: Case, folder: Path, clock: ClipClock = untimed) -> RunRecord:
        """Run every rank on the same card; seconds are recorded and never compared."""
        driver, placement = self._driver(), Placement(backend="gloo", capped=True, ranks_a_card=tier.cards)
        plan = RunPlan.full_size(tier, case, "partitioned", folder)
        lease = leased(large_enough(driver, tier), 1, read=lambda: large_enough(self._driver(), tier))
        return run_on_cards(plan, clock, lease=lease, placement=placement, driver=driver)

    def _driver(self) -> DriverState:
        return read_driver(self._library, self._environment)


def needed_bytes(tier: Tier) -> int:
    """Bytes that all ranks of a tier take of one card, a context each included."""
    return tier.cards * (tier.limit_bytes + CONTEXT_BYTES)


def large_enough(driver: DriverState, tier: Tier) -> tuple[CardState, ...]:
    """The visible cards that a whole tier fits into."""
    return tuple(card for card in driver.cards if (card.total_bytes or 0) >= needed_bytes(tier))
