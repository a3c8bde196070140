"""No card: the full-size model executes on fake tensors, a process for each distinct rank role."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from liveavatar_core.config import Recipe
from liveavatar_core.errors import GIB
from liveavatar_core.parallel.ranks import distinct_ranks
from liveavatar_core.simulation.voice_limit import VoiceLimit, voice_limit
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import Case, Tier
from suites.harness.hardware.clip_runs import PRELOAD
from suites.harness.messages import RankReport, SimulationReport, SimulationRequest
from suites.harness.processes.failures import GroupError
from suites.harness.processes.rank_group import Job, RankGroup
from suites.harness.pytest_plugin.clip_clock import ClipClock, untimed
from suites.harness.records.build import build_record, host_machine
from suites.harness.records.measurements import SimulatedRole, Timing
from suites.harness.records.record import Failure, RunRecord, host_bytes
from suites.harness.records.run_result import RunResult, failed_result

TARGET = "suites.harness.workers.simulate:simulate"
WARM_UP = "suites.harness.workers.simulate:warm_up"
Roles = tuple[tuple[int, ...], ...]
"""Ranks that do the same stand together, the lowest first."""


class SimulatedMode:
    """Predicts a tier's outcome by executing it."""

    name = "simulated"

    def why_not(self, tier: Tier) -> str | None:
        """None: it needs nothing but a CPU."""
        return None

    def unsupported(self, tier: Tier, case: Case) -> str | None:
        """None: the tier's stated card decides, or none at all."""
        return None

    def run(self, tier: Tier, case: Case, folder: Path, clock: ClipClock = untimed) -> RunRecord:
        """Simulate each role; logs go to `folder`."""
        plan = RunPlan.full_size(tier, case, "simulated", folder)
        result = _simulated(plan)
        machine = host_machine(tier.card, tier.cards, result.reports, link=tier.card_model.link)
        return build_record(plan, result, machine)


def _simulated(plan: RunPlan) -> RunResult:
    roles = tuple(distinct_ranks(plan.recipe.deployment).values())
    request = SimulationRequest(recipe=plan.recipe, card=plan.tier.card, ranks=tuple(ranks[0] for ranks in roles))
    job = Job(target=TARGET, world_size=len(roles), preload=PRELOAD, warm_up=WARM_UP)
    try:
        with RankGroup.start(job, plan.folder) as group:
            told = group.command("simulate", request, answer=SimulationReport)
            result = _result(plan, told, roles)
            if result.outcome == "pass" and _asks_for_voice(plan):
                result = replace(result, longest_voice=_longest_voice(plan, group, request, roles))
    except GroupError as error:
        return failed_result(error)
    return result


def _asks_for_voice(plan: RunPlan) -> bool:
    """Whether the case stands for any voice: it names none. Videos that are decoded at the end grow with it anyway."""
    return plan.case.voice_seconds is None and plan.recipe.clip.enable_online_decode


def _longest_voice(plan: RunPlan, group: RankGroup, request: SimulationRequest, roles: Roles) -> VoiceLimit:
    def why_not(recipe: Recipe) -> str | None:
        told = group.command("simulate", replace(request, recipe=recipe), answer=SimulationReport)
        result = _result(plan, told, roles)
        return str(result.shortage) if result.shortage else result.failure.message if result.failure else None

    return voice_limit(plan.recipe, why_not)


def _result(plan: RunPlan, told: Sequence[SimulationReport], roles: Roles) -> RunResult:
    """How it ended, by what each role came to."""
    result = RunResult(
        outcome="pass",
        reports=tuple(_every_rank(told, roles)),
        simulated_roles=tuple(map(_role, told, roles)),
    )
    short = [each.shortage for each in told if each.shortage]
    if short:  # the lowest rank that ran out speaks for all
        ranks = tuple(each.rank for each in short)
        return replace(result, outcome="oom", shortage=short[0], ranks_out_of_memory=ranks)
    result = replace(result, timing=_timing(told))
    failure = _out_of_host_memory(result, plan)
    return replace(result, outcome="host-oom", failure=failure) if failure else result


def _out_of_host_memory(result: RunResult, plan: RunPlan) -> Failure | None:
    """Where the ranks of the machine hold more than it has."""
    held, limit = host_bytes(peak for report in result.reports for peak in report.memory), plan.host_limit_bytes
    if held is None or limit is None or held <= limit:
        return None
    what = f"{plan.tier.cards} ranks hold {held / GIB:.1f} GiB of {limit / GIB:.1f} in host memory"
    step = "offload less (t5_cpu, offload_kv_cache, offload_blocks), add memory, or give --host-gib as it is"
    return Failure(message=what, next_step=step)


def _timing(told: Sequence[SimulationReport]) -> Timing:
    """A clip takes as long as its slowest rank."""
    slowest = max(told, key=lambda each: each.time.seconds)
    return Timing(
        predicted_seconds_per_clip=slowest.time.seconds,
        predicted_first_clip_seconds=max(each.first_clip_time.seconds for each in told),
        communication_share=slowest.time.communication_share,
        least_predicted_seconds_per_clip=slowest.time.least_seconds,
        least_communication_share=slowest.time.least_communication_share,
        predicted_seconds_by_part=slowest.seconds_by_part,
        missing={"clip_seconds": "simulated: no clock was read"},
    )


def _role(told: SimulationReport, ranks: tuple[int, ...]) -> SimulatedRole:
    seconds = asdict(told.time) if told.clips else {}
    return SimulatedRole(
        rank=ranks[0],
        stands_for=ranks,
        units_executed=told.units_executed,
        units_repeated=told.units_repeated,
        predicted_seconds_by_kind=seconds,
        expandable_segments=told.expandable,
    )


def _every_rank(told: Sequence[SimulationReport], roles: Roles) -> Iterator[RankReport]:
    """The report of the rank that was simulated, for every rank that it stands for."""
    for each, ranks in zip(told, roles, strict=True):
        for rank in ranks:
            yield _as_rank(each.report, rank)


def _as_rank(report: RankReport, rank: int) -> RankReport:
    return replace(
        report,
        memory=tuple(replace(peak, rank=rank) for peak in report.memory),
        timeline=replace(report.timeline, rank=rank) if report.timeline else None,
        observed=replace(report.observed, rank=rank) if report.observed else None,
    )
