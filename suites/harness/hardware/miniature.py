"""No card: a tiny model of the same architecture really runs, a process a rank, under the ledger's scaled limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from liveavatar_core.config import Recipe
from liveavatar_core.recipes import miniature
from suites.harness.clock import ClipClock, untimed
from suites.harness.hardware.assemble import (
    PRELOAD,
    host_machine,
    knobs,
    phase_memory,
    provenance,
    run_clips,
    timelines,
)
from suites.harness.launch import Job
from suites.harness.record import DeclaredRecipe, RunRecord
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

    def run(self, tier: Tier, case: Case, folder: Path, clock: ClipClock = untimed) -> RunRecord:
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
        fields, replies, version = run_clips(job, folder, clock)
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
            knobs=knobs(replies),
            **fields,
            **provenance(),
        )
