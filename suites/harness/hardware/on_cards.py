"""What the physical and the partitioned mode have in common: ranks on real cards. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from liveavatar_core.config import Recipe
from liveavatar_core.errors import GIB
from liveavatar_core.hardware.nvml import CardState, DriverState
from suites.harness.cases.tiers import Case, Tier
from suites.harness.hardware.lease import CardsUnavailable
from suites.harness.hardware.miniature import ASSETS, PROMPT
from suites.harness.processes.rank_group import Job
from suites.harness.pytest_plugin.clip_clock import ClipClock
from suites.harness.records.build import host_machine, knobs, provenance, run_clips, timelines
from suites.harness.records.expected_phases import expected_phases
from suites.harness.records.record import DeclaredRecipe, Failure, HardwareName, PhaseMemory, RunRecord

ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
TARGET = "suites.harness.workers.cuda:run"
PRELOAD = ("torch", "suites.harness.workers.cuda")
CLIP_SECONDS = 600.0
"""For a command; a clip of the 14B takes some tens of seconds, loading it some minutes at most."""
Lease = AbstractContextManager[tuple[CardState, ...]]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How ranks lie on cards."""

    hardware: HardwareName
    """physical or partitioned."""
    backend: str
    """Between ranks: nccl, or gloo where they share a card."""
    limit_bytes: int
    """What a card may hold."""
    capped: bool
    """Whether that is imposed on the allocator."""
    ranks_a_card: int
    """Ranks that share one card."""


def run_on_cards(
    tier: Tier, case: Case, folder: Path, clock: ClipClock, *, lease: Lease, placement: Placement, driver: DriverState
) -> RunRecord:
    """Run `case` on the cards that `lease` gives; busy cards are an outcome as well: infrastructure."""
    recipe = tier.recipe(case)
    try:
        with lease as cards:
            job = _job(recipe, tier.cards, folder, cards, placement)
            fields, replies, version = run_clips(job, folder, clock)
    except CardsUnavailable as error:
        failure = Failure(message=error.what, next_step=error.next_step)
        return _record(tier, case, recipe, placement, driver, (), [], None, outcome="infrastructure", failure=failure)
    if placement.hardware == "physical" and "timing" in fields:
        fields["timing"] = replace(fields["timing"], comparable=True)
    return _record(tier, case, recipe, placement, driver, cards, replies, version, **fields)


def _job(recipe: Recipe, world_size: int, folder: Path, cards: Sequence[CardState], placement: Placement) -> Job:
    uuids = [cards[rank // placement.ranks_a_card].uuid for rank in range(world_size)]
    payload = {
        "recipe": recipe,
        "capacity_bytes": placement.limit_bytes if placement.capped else None,
        "backend": placement.backend,
        "uuids": uuids,
        "alone": placement.ranks_a_card == 1,
        "image": str(ASSETS / "portrait.png"),
        "audio": str(ASSETS / "voice.wav"),
        "prompt": PROMPT,
        "folder": str(folder),
        "video": str(folder / "video.mp4"),
    }
    return Job(
        target=TARGET,
        payload=payload,
        world_size=world_size,
        env=tuple({"CUDA_VISIBLE_DEVICES": uuid, "LOCAL_RANK": "0"} for uuid in uuids),
        command_seconds=CLIP_SECONDS,
        preload=PRELOAD,
    )


def _record(
    tier: Tier,
    case: Case,
    recipe: Recipe,
    placement: Placement,
    driver: DriverState,
    cards: Sequence[CardState],
    replies: list[dict[str, Any]],
    torch: str | None,
    **fields: Any,
) -> RunRecord:
    imitates = placement.hardware == "partitioned"
    first = next(iter(cards or driver.cards))
    return RunRecord(
        tier=tier.name,
        case=case.name,
        recipe=DeclaredRecipe.of(recipe),
        hardware=placement.hardware,
        emulated=imitates,
        machine=host_machine(
            first.name or "unknown",
            len(cards),
            torch,
            card_memory_bytes=first.total_bytes,
            driver=driver.version,
            cuda=next((reply["cuda"] for reply in replies if "cuda" in reply), None),
            imitated_card=tier.card if imitates else None,
            imitated_cards=tier.cards if imitates else None,
            link="shm" if imitates and tier.cards > 1 else tier.card_model.link,
            allocator=_allocator(placement),
            attention_backend="scaled_dot_product_attention",
        ),
        limit_bytes=placement.limit_bytes,
        expected_phases=expected_phases(recipe.deployment),
        memory=tuple(_memory(reading for reply in replies for reading in reply.get("memory", ()))),
        timelines=timelines(replies),
        knobs=knobs(replies) | circumstances(replies),
        **fields,
        **provenance(),
    )


def circumstances(replies: list[dict[str, Any]]) -> dict[str, Any]:
    """What held the cards back, and the most power that one took."""
    slowed = {reason for reply in replies for reason in reply.get("slowed_by", ())}
    watts = max((reply.get("most_watts", 0.0) for reply in replies), default=0.0)
    return {"cards_slowed_by": sorted(slowed), **({"most_watts": watts} if watts else {})}


def allocator_settings() -> str:
    """Of torch's caching allocator, as the environment has them."""
    return os.environ.get(ALLOCATOR, "default")


def _allocator(placement: Placement) -> str:
    settings = allocator_settings()
    return f"{settings}, capped at {placement.limit_bytes / GIB:.2f} GiB" if placement.capped else settings


def _memory(readings: Iterable[dict[str, Any]]) -> Iterable[PhaseMemory]:
    return (PhaseMemory(**reading) for reading in sorted(readings, key=lambda reading: reading["rank"]))
