"""No card: a tiny model of the same architecture really runs, a process a rank, under the tracker's scaled limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from liveavatar_core import strict
from liveavatar_core.config import ClipSpec, Deployment, Recipe
from liveavatar_core.errors import BadData
from liveavatar_core.recipes import miniature
from suites.harness.cases.tiers import MIB, Case, Tier
from suites.harness.probes.film.film import Film, read_kept
from suites.harness.probes.film.quality import Quality, compared
from suites.harness.processes.rank_group import Job
from suites.harness.pytest_plugin.clip_clock import ClipClock, untimed
from suites.harness.records.build import (
    PRELOAD,
    host_machine,
    knobs,
    phase_memory,
    provenance,
    quality_fields,
    run_clips,
    timelines,
)
from suites.harness.records.expected_phases import expected_phases
from suites.harness.records.record import DeclaredRecipe, RunRecord

ASSETS = Path(__file__).parents[3] / "assets"
TARGET = "suites.harness.workers.miniature:run"
PROMPT = "A person talks to the camera and smiles."


class MiniatureMode:
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
        recipe = self.recipe(tier, case)
        limit = int((case.miniature_capacity_mib or 0) * MIB) or None
        kept = None if case.reference_clip is None else folder / "kept.safetensors"
        fields, replies, version = run_clips(self._job(recipe, limit, folder, kept), folder, clock)
        if kept is not None and fields["outcome"] == "pass":
            alone = Quality(values=fields["quality"], missing=fields["quality_missing"])
            fields |= quality_fields(alone | compared(read_kept(kept), self._reference(recipe, case, folder)))
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
                cpu_kernels=next((reply["cpu_kernels"] for reply in replies if "cpu_kernels" in reply), None),
            ),
            limit_bytes=limit,
            expected_phases=expected_phases(recipe.deployment),
            memory=phase_memory(reading for reply in replies for reading in reply.get("memory", ())),
            timelines=timelines(replies),
            knobs=knobs(replies),
            **fields,
            **provenance(),
        )

    def recipe(self, tier: Tier, case: Case) -> Recipe:
        """The small twin of what `case` runs."""
        recipe = self._shrink(tier.recipe(case))
        return replace(recipe, clip=_changed(recipe.clip, case.miniature_clip, f"{tier.name}.cases.{case.name}"))

    def _job(self, recipe: Recipe, limit: int | None, folder: Path, kept: Path | None) -> Job:
        payload = {
            "recipe": recipe,
            "capacity_bytes": limit,
            "image": str(ASSETS / "head.png"),
            "audio": str(ASSETS / "voice.wav"),
            "prompt": PROMPT,
            "video": str(folder / "video.mp4"),
            "kept": str(kept) if kept else None,
        }
        return Job(
            target=self._target,
            payload=payload,
            world_size=recipe.deployment.num_cards,
            command_seconds=self._command_seconds,
            preload=PRELOAD,
        )

    def _reference(self, recipe: Recipe, case: Case, folder: Path) -> Film:
        """The film of one process in float32, made once for all cases that are compared with it.

        Raises BadData where it cannot be made.
        """
        exact = _full_precision(recipe, case)
        if exact not in _REFERENCES:
            place = folder / "reference"
            place.mkdir()
            fields, _, _ = run_clips(self._job(exact, None, place, place / "kept.safetensors"), place, untimed)
            if fields["outcome"] != "pass":
                raise BadData(f"the reference ended in {fields['outcome']}", f"read the logs in {place}")
            _REFERENCES[exact] = read_kept(place / "kept.safetensors")
        return _REFERENCES[exact]


_REFERENCES: dict[Recipe, Film] = {}
"""Films that others are compared with, by their recipe."""


def _full_precision(recipe: Recipe, case: Case) -> Recipe:
    clip = _changed(recipe.clip, case.reference_clip or {}, f"reference of {case.name}")
    lora, rank = recipe.deployment.lora, recipe.deployment.lora_rank
    exact = Deployment(storage_dtype="float32", compute_dtype="float32", lora=lora, lora_rank=rank)
    return Recipe(name="reference", clip=clip, model=recipe.model, deployment=exact)


def _changed(clip: ClipSpec, changes: dict[str, Any], where: str) -> ClipSpec:
    return strict.build(ClipSpec, asdict(clip) | changes, where)
