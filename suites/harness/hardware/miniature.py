"""No card: a tiny model of the same architecture really runs, a process a rank, under the tracker's scaled limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from liveavatar_core import strict
from liveavatar_core.config import ClipSpec, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadData
from liveavatar_core.recipes import miniature
from suites.harness.cases.clip_rounds import ClipRounds
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import MIB, Case, Tier
from suites.harness.cases.workloads import miniature_workload
from suites.harness.hardware.clip_runs import PRELOAD, clip_job, run_clips
from suites.harness.messages import ClipJob
from suites.harness.probes.video.measured_video import MeasuredVideo, read_kept
from suites.harness.probes.video.quality import compared
from suites.harness.processes.rank_group import Job
from suites.harness.processes.time_outs import TimeOuts
from suites.harness.pytest_plugin.clip_clock import ClipClock, untimed
from suites.harness.records.build import build_record, host_machine
from suites.harness.records.record import RunRecord
from suites.harness.records.run_result import RunResult

TARGET = "suites.harness.workers.miniature:run"


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

    def unsupported(self, tier: Tier, case: Case) -> str | None:
        """None: the tier's stated card decides, or none at all."""
        return None

    def run(self, tier: Tier, case: Case, folder: Path, clock: ClipClock = untimed) -> RunRecord:
        """Run every rank; logs and the mp4 go to `folder`."""
        plan = self.plan(tier, case, folder)
        kept = None if case.reference_clip is None else folder / "kept.safetensors"
        result = self._clips(clip_job(plan, kept=kept), plan.rounds, clock)
        if kept is not None and result.outcome == "pass":
            against = compared(read_kept(kept), self._reference(plan))
            result = replace(result, quality=result.quality | against)
        machine = host_machine(
            "miniature", tier.cards, result.reports, imitated_card=tier.card, imitated_cards=tier.cards, link="shm"
        )
        return build_record(plan, result, machine)

    def plan(self, tier: Tier, case: Case, folder: Path) -> RunPlan:
        """The plan of a run of `case`: the small twin of its recipe, over the tiny avatar's head."""
        recipe = self._shrink(tier.recipe(case))
        changes = {"num_clip": case.clip.get("num_clip", 1)} | case.miniature_clip
        clip = _changed(recipe.clip, changes, f"{tier.name}.cases.{case.name}")
        rounds = tier.rounds or ClipRounds(warm_up=0, measured=clip.num_clip)
        clip = replace(clip, num_clip=max(clip.num_clip, rounds.total))
        return RunPlan(
            tier=tier,
            case=case,
            hardware="miniature",
            recipe=replace(recipe, clip=clip, workload=tier.workload or miniature_workload()),
            rounds=rounds,
            limit_bytes=int((case.miniature_capacity_mib or 0) * MIB) or None,
            folder=folder,
        )

    def _clips(self, given: ClipJob, rounds: ClipRounds, clock: ClipClock) -> RunResult:
        time_outs = TimeOuts(command_seconds=self._command_seconds)
        given = replace(given, group_seconds=time_outs.group_seconds)
        job = Job(
            target=self._target,
            given=given,
            world_size=given.recipe.deployment.num_cards,
            command_seconds=time_outs.command_seconds,
            preload=PRELOAD,
        )
        return run_clips(job, given, rounds, clock)

    def _reference(self, plan: RunPlan) -> MeasuredVideo:
        """The video of one process in float32, made once for all cases that are compared with it.

        Raises BadData where it cannot be made.
        """
        exact = _full_precision(plan)
        if exact not in _REFERENCES:
            place = plan.folder / "reference"
            place.mkdir()
            kept = place / "kept.safetensors"
            job = clip_job(replace(plan, recipe=exact, limit_bytes=None, folder=place), kept=kept)
            result = self._clips(job, plan.rounds, untimed)
            if result.outcome != "pass":
                raise BadData(f"the reference ended in {result.outcome}", f"read the logs in {place}")
            _REFERENCES[exact] = read_kept(kept)
        return _REFERENCES[exact]


_REFERENCES: dict[Recipe, MeasuredVideo] = {}
"""Videos that others are compared with, by their recipe."""


def _full_precision(plan: RunPlan) -> Recipe:
    recipe = plan.recipe
    clip = _changed(recipe.clip, plan.case.reference_clip or {}, f"reference of {plan.case.name}")
    lora, rank = recipe.deployment.lora, recipe.deployment.lora_rank
    exact = Deployment(storage_dtype="float32", compute_dtype="float32", lora=lora, lora_rank=rank)
    return Recipe(name="reference", clip=clip, model=recipe.model, deployment=exact, workload=recipe.workload)


def _changed(clip: ClipSpec, changes: dict[str, Any], where: str) -> ClipSpec:
    return strict.build(ClipSpec, asdict(clip) | changes, where)
