"""No card: the full-size model executes on fake tensors, a process for each distinct rank role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from liveavatar_core.parallel.ranks import distinct_ranks
from suites.harness.cases.tiers import Case, Tier
from suites.harness.processes.failures import GroupError
from suites.harness.processes.rank_group import Job, RankGroup
from suites.harness.pytest_plugin.clip_clock import ClipClock, untimed
from suites.harness.records import build as assemble
from suites.harness.records.build import (
    PRELOAD,
    failure_of,
    host_machine,
    phase_memory,
    provenance,
    timelines,
    torch_of,
)
from suites.harness.records.expected_phases import expected_phases
from suites.harness.records.record import DeclaredRecipe, OutOfMemoryDetails, RunRecord, Timing


class SimulatedMode:
    """Predicts a tier's outcome by executing it."""

    name = "simulated"

    def why_not(self, tier: Tier) -> str | None:
        """None: it needs nothing but a CPU."""
        return None

    def run(self, tier: Tier, case: Case, folder: Path, clock: ClipClock = untimed) -> RunRecord:
        """Simulate each role; logs go to `folder`."""
        recipe = tier.recipe(case)
        roles = tuple(distinct_ranks(recipe.deployment).values())
        payload = {"recipe": recipe, "card": tier.card, "ranks": [ranks[0] for ranks in roles]}
        job = Job(
            target="suites.harness.workers.simulate:simulate", payload=payload, world_size=len(roles), preload=PRELOAD
        )
        replies: list[dict[str, Any]] = []
        try:
            with RankGroup.start(job, folder) as group:
                replies = group.command("run")
            fields = _judged(replies)
        except GroupError as error:
            fields = failure_of(error)
        return RunRecord(
            tier=tier.name,
            case=case.name,
            recipe=DeclaredRecipe.of(recipe),
            hardware="simulated",
            emulated=True,
            machine=host_machine(tier.card, tier.cards, torch_of(replies), link=tier.card_model.link),
            limit_bytes=tier.limit_bytes,
            expected_phases=expected_phases(recipe.deployment),
            memory=phase_memory(_every_rank(replies, roles)),
            timelines=timelines(_every_timeline(replies, roles)),
            knobs=_knobs(replies, roles),
            **fields,
            **provenance(),
        )


def _judged(replies: list[dict[str, Any]]) -> dict[str, Any]:
    """Outcome and predicted time; the lowest rank that ran out of memory speaks for all."""
    failed = [reply["out_of_memory"] for reply in replies if reply["out_of_memory"]]
    if failed:
        others = tuple(details["rank"] for details in failed[1:])
        return {"outcome": "oom", "out_of_memory": OutOfMemoryDetails(**failed[0], other_ranks=others)}
    slowest = max(replies, key=lambda reply: reply["predicted_seconds"])
    timing = Timing(
        predicted_seconds_per_clip=slowest["predicted_seconds"] / slowest["clips"],
        communication_share=slowest["communication_share"],
        least_predicted_seconds_per_clip=slowest["least_seconds"] / slowest["clips"],
        least_communication_share=slowest["least_communication_share"],
        missing={"clip_seconds": "simulated: no clock was read"},
    )
    return {"outcome": "pass", "timing": timing}


def _knobs(replies: list[dict[str, Any]], roles: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    """Which ranks stand for which, how much of it was executed, and of what a clip's seconds are made."""
    knobs: dict[str, Any] = {"ranks_simulated": {str(ranks[0]): list(ranks) for ranks in roles}}
    every: list[dict[str, Any]] = [{}] * sum(map(len, roles))
    for reply, ranks in zip(replies, roles, strict=False):
        for rank in ranks:
            every[rank] = reply
    knobs |= assemble.knobs(every)
    for reply, ranks in zip(replies, roles, strict=False):
        name = str(ranks[0])
        knobs.setdefault("units", {})[name] = reply["units"]
        if reply["clips"]:
            seconds = {kind: spent / reply["clips"] for kind, spent in reply["breakdown"].items()}
            knobs.setdefault("predicted_breakdown", {})[name] = seconds
    return knobs


def _every_rank(replies: list[dict[str, Any]], roles: tuple[tuple[int, ...], ...]) -> list[dict[str, Any]]:
    """Readings of the rank that was simulated, for every rank that it stands for."""
    return [
        {**reading, "rank": rank}
        for reply, ranks in zip(replies, roles, strict=False)
        for rank in ranks
        for reading in reply["memory"]
    ]


def _every_timeline(replies: list[dict[str, Any]], roles: tuple[tuple[int, ...], ...]) -> list[dict[str, Any]]:
    """The timeline of the rank that was simulated, for every rank that it stands for."""
    return [
        {"timeline": {**reply["timeline"], "rank": rank}}
        for reply, ranks in zip(replies, roles, strict=False)
        if "timeline" in reply
        for rank in ranks
    ]
