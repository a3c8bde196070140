"""The run record of ranks that torchrun started, from the files that they left in a shared folder. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from liveavatar_core.hardware.cards import find_card_by_driver_name
from suites.harness.cases.run_plan import RunPlan
from suites.harness.hardware.clip_runs import clip_job, passed_result
from suites.harness.hardware.on_cards import allocator_settings, kernels
from suites.harness.messages import RankReport
from suites.harness.multinode.rank_file import RankFile, read_rank_file
from suites.harness.probes.nccl_log import read_nccl
from suites.harness.processes.failures import (
    WAITED_IN_VAIN,
    GroupError,
    RankFailure,
    kind_of,
    message_of,
    only_lost_a_peer,
)
from suites.harness.records.build import build_record, host_machine
from suites.harness.records.clip_times import ClipTimes
from suites.harness.records.record import Failure, MachineProfile, RunRecord
from suites.harness.records.run_result import RunResult, failed_result


def gather(plan: RunPlan, nodes: int) -> RunRecord:
    """The record of a run over `nodes` machines. A rank that left nothing, or did not finish, is an outcome."""
    told = [read_rank_file(plan.folder / f"rank{rank}.json") for rank in range(plan.tier.cards)]
    plan = _on_their_cards(plan, told)
    result = replace(_different_cards(told) or _result(plan, told), nccl=read_nccl(plan.folder, range(plan.tier.cards)))
    return build_record(plan, result, _machine(plan, told, result.reports, nodes))


def _on_their_cards(plan: RunPlan, told: Sequence[RankFile]) -> RunPlan:
    """The plan under the limits of the cards that were found, in place of those of the card that the tier states."""
    name = next((each.card.name for each in told if each.card and each.card.name), None)
    known = find_card_by_driver_name(name) if name else None
    if known is None:
        return plan
    return RunPlan.full_size(replace(plan.tier, card=known.name), plan.case, plan.hardware, plan.folder)


def _different_cards(told: Sequence[RankFile]) -> RunResult | None:
    """Where nodes have cards of several models: such a run is nobody's baseline."""
    names = sorted({each.card.name or "a card without a name" for each in told if each.card})
    if len(names) < 2:
        return None
    failure = Failure(message=f"ranks stood on {' and '.join(names)}", next_step="ask for nodes with equal cards")
    return RunResult(outcome="infrastructure", failure=failure, reports=tuple(each.last_report for each in told))


def _result(plan: RunPlan, told: Sequence[RankFile]) -> RunResult:
    reports = tuple(each.last_report for each in told)
    if failed := _failed(plan, told):
        return failed_result(failed, reports)
    times = ClipTimes(
        rounds=plan.rounds,
        load_seconds=None,
        loaded=[each.loaded for each in told if each.loaded],
        clips=list(zip(*(each.clips for each in told), strict=True)),
    )
    return passed_result(clip_job(plan), times, reports, comparable=plan.hardware == "physical")


def _failed(plan: RunPlan, told: Sequence[RankFile]) -> GroupError | None:
    """The cause: errors of the core first, by rank; ranks that only lost a peer, or were ended, where no other is."""
    failures = [_explain(plan, rank, each) for rank, each in enumerate(told) if each.error or not each.finished]
    if not failures:
        return None
    spoke = [each for each in failures if told[each.rank].error]
    silent = [each for each in failures if not told[each.rank].error]
    if silent and spoke and all(WAITED_IN_VAIN.search(each.message) for each in spoke):
        waited = " and ".join(f"rank {each.rank}" for each in spoke)
        message = f"did not come to a collective in which {waited} waited until the group's time-out"
        return GroupError([replace(each, kind="hang", message=message) for each in silent], "read the job's log")
    causes = [each for each in spoke if not only_lost_a_peer(each)] or spoke or failures
    causes.sort(key=lambda each: each.error is None)
    lead = told[causes[0].rank].error
    return GroupError(causes, "read the rank's output in the job's log" if lead else "read the job's log")


def _explain(plan: RunPlan, rank: int, told: RankFile) -> RankFailure:
    error, phase = told.error, told.last_report.phase or ""
    if error is None:
        words = f"ended without finishing; it had answered {told.answered} commands, see {plan.folder}"
        return RankFailure(kind="crash", rank=rank, phase=phase, message=words)
    return RankFailure(kind=kind_of(error), rank=rank, phase=phase, message=message_of(error), error=error.typed)


def _machine(plan: RunPlan, told: Sequence[RankFile], reports: Sequence[RankReport], nodes: int) -> MachineProfile:
    """The machine of the first rank; the network between machines is part of its identity."""
    card, tier = told[0].card, plan.tier
    between = f"{nodes} nodes" if nodes > 1 else None
    link = tier.card_model.link if card else "shm"
    return host_machine(
        (card.name if card else None) or "miniature",
        tier.cards,
        reports,
        allocator=allocator_settings() if card else "tracker",
        card_memory_bytes=card.total_bytes if card else None,
        driver=card.driver if card else None,
        imitated_card=None if card else tier.card,
        imitated_cards=None if card else tier.cards,
        link=", ".join(filter(None, (link, between))),
        **(kernels(plan.recipe.deployment) if card else {}),
    )
