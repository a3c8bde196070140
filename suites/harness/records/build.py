"""The run record of a plan, of what came of it and of the machine: put together here alone. Free of torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from suites.harness.cases.run_plan import RunPlan, frame_folder
from suites.harness.messages import RankReport
from suites.harness.records.expected_phases import expected_phases
from suites.harness.records.measurements import CardConditions
from suites.harness.records.record import DeclaredRecipe, MachineProfile, RunRecord
from suites.harness.records.run_result import RunResult
from suites.harness.records.working_tree import commit_at_start

T = TypeVar("T")


def build_record(plan: RunPlan, result: RunResult, machine: MachineProfile) -> RunRecord:
    """The record of a run that is over, however it ended; readings stand in the order of ranks."""
    reports = result.reports
    timelines = (each.timeline for each in reports if each.timeline is not None)
    observed = (each.observed for each in reports if each.observed is not None)
    return RunRecord(
        tier=plan.tier.name,
        case=plan.case.name,
        recipe=DeclaredRecipe.of(plan.recipe),
        hardware=plan.hardware,
        emulated=plan.hardware != "physical",
        machine=machine,
        limit_bytes=plan.limit_bytes,
        host_limit_bytes=plan.host_limit_bytes,
        outcome=result.outcome,
        out_of_memory=result.shortage,
        ranks_out_of_memory=result.ranks_out_of_memory,
        failure=result.failure,
        expected_phases=expected_phases(plan.recipe.deployment),
        memory=tuple(sorted((peak for each in reports for peak in each.memory), key=lambda peak: peak.rank)),
        allocators={str(each.memory[0].rank): each.allocator for each in reports if each.allocator and each.memory},
        loads={str(each.memory[0].rank): each.load for each in reports if each.load and each.memory},
        timelines=tuple(sorted(timelines, key=lambda timeline: timeline.rank)),
        timing=result.timing,
        observed=tuple(sorted(observed, key=lambda settings: settings.rank)),
        simulated_roles=result.simulated_roles,
        longest_voice=result.longest_voice,
        nccl=result.nccl,
        card_conditions=_conditions(reports),
        video_format=_video_format(plan.video) if result.outcome == "pass" else None,
        quality=result.quality.values,
        quality_missing=result.quality.missing,
        **provenance(),
    )


def _video_format(video: Path) -> Literal["mp4", "png"] | None:
    if video.exists():
        return "mp4"
    return "png" if frame_folder(video).exists() else None


def host_machine(
    card: str, cards: int, reports: Iterable[RankReport], *, allocator: str = "tracker", **values: Any
) -> MachineProfile:
    """This machine, with cards or imitating some; software is what the first rank that knew it told of."""
    told = tuple(reports)
    return MachineProfile(
        card=card,
        cards=cards,
        torch=_first(each.torch for each in told),
        cuda=_first(each.cuda for each in told),
        cpu_kernels=_first(each.cpu_kernels for each in told),
        allocator=allocator,
        host_cpu=platform.processor() or platform.machine(),
        host_cores=os.cpu_count(),
        **values,
    )


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _conditions(reports: Iterable[RankReport]) -> CardConditions:
    """The conditions of all cards together: every reason that slowed one, and the most power that one took."""
    told = [each.card_conditions for each in reports]
    watts = [each.most_watts for each in told if each.most_watts is not None]
    return CardConditions(
        slowed_by=tuple(sorted({reason for each in told for reason in each.slowed_by})),
        most_watts=max(watts, default=None),
    )


def provenance() -> dict[str, Any]:
    """Commit, date and runner, as fields of a record."""
    return {
        "commit": commit_at_start(),
        "date": datetime.now(UTC).date(),
        "run": os.environ.get("LIVEAVATAR_RUN", "local"),
    }
