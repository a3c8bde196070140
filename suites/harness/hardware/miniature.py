"""No card: a tiny model of the same architecture really runs, a process a rank, under the ledger's scaled limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from liveavatar_core.config import Recipe
from liveavatar_core.recipes import miniature
from suites.harness.failures import GroupError
from suites.harness.hardware.assemble import (
    PRELOAD,
    failure_of,
    host_machine,
    phase_memory,
    provenance,
    timelines,
    torch_of,
)
from suites.harness.launch import Job, RankGroup
from suites.harness.record import DeclaredRecipe, RunRecord, Timing
from suites.harness.tiers import MIB, Case, Tier

ASSETS = Path(__file__).parents[3] / "assets"
TARGET = "suites.harness.workers.miniature:run"
PROMPT = "A person talks to the camera and smiles."


class Mode:
    """Runs a tier's layout for real, small."""

    name = "miniature"

    def __init__(
        self,
        *,
        target: str = TARGET,
        shrink: Callable[[Recipe], Recipe] = miniature,
        command_seconds: float = Job.command_seconds,
    ) -> None:
        """`target`: what ranks run. `shrink`: a recipe's small twin. `command_seconds`: for a clip, at most."""
        self._target, self._shrink, self._command_seconds = target, shrink, command_seconds

    def why_not(self, tier: Tier) -> str | None:
        """Why not: no case of the tier says what its miniature may hold."""
        if all(case.miniature_capacity_mib is None for case in tier.cases):
            return f"no case of {tier.name} has a miniature_capacity_mib"
        return None

    def run(self, tier: Tier, case: Case, folder: Path) -> RunRecord:
        """Run every rank; logs and the mp4 go to `folder`."""
        recipe = self._shrink(tier.recipe(case))
        limit = int((case.miniature_capacity_mib or 0) * MIB) or None
        payload = {
            "recipe": recipe,
            "capacity_bytes": limit,
            "image": str(ASSETS / "portrait.png"),
            "audio": str(ASSETS / "voice.wav"),
            "prompt": PROMPT,
            "video": str(folder / "video.mp4"),
        }
        job = Job(
            target=self._target,
            payload=payload,
            world_size=tier.cards,
            command_seconds=self._command_seconds,
            preload=PRELOAD,
        )
        fields, replies, version = _run(job, folder)
        return RunRecord(
            tier=tier.name,
            case=case.name,
            recipe=DeclaredRecipe.of(recipe),
            hardware="miniature",
            emulated=True,
            machine=host_machine(
                "miniature",
                tier.cards,
                version,
                imitated_card=tier.card,
                imitated_cards=tier.cards,
                link="shm",
            ),
            limit_bytes=limit,
            memory=phase_memory(reading for reply in replies for reading in reply.get("memory", ())),
            timelines=timelines(replies),
            **fields,
            **provenance(),
        )


def _run(job: Job, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], str | None]:
    """Outcome, what ranks told last, and version of torch."""
    group = RankGroup.start(job, folder)
    try:
        with group:
            group.command("load")
            clips = list(iter(lambda: group.command("clip"), [{}] * job.world_size))
            replies = group.command("finish")
    except GroupError as error:
        return failure_of(error), group.last_events, None
    return {"outcome": "pass", "timing": _timing(clips)}, replies, torch_of(replies)


def _timing(clips: list[list[dict[str, Any]]]) -> Timing:
    """A clip takes as long as its slowest rank."""
    first = [reply["first_frame_seconds"] for reply in clips[0] if reply["first_frame_seconds"] is not None]
    return Timing(
        clip_seconds=tuple(max(reply["seconds"] for reply in replies) for replies in clips),
        first_frame_seconds=max(first),
        missing={"predicted_seconds_per_clip": "measured"},
    )
