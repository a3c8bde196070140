"""What the physical and the partitioned mode have in common: ranks on real cards. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import GIB
from liveavatar_core.hardware.nvml import CardState, DriverState
from suites.harness.cases.run_plan import RunPlan
from suites.harness.hardware.clip_runs import clip_job, run_clips
from suites.harness.hardware.lease import CardsUnavailable
from suites.harness.messages import ClipJob
from suites.harness.probes.nccl_log import nccl_log, read_nccl
from suites.harness.processes.rank_group import Job
from suites.harness.processes.time_outs import TimeOuts
from suites.harness.pytest_plugin.clip_clock import ClipClock
from suites.harness.records.build import build_record, host_machine
from suites.harness.records.record import Failure, MachineProfile, RunRecord
from suites.harness.records.run_result import RunResult

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Where torch looks for its allocator's settings: the newer name first."""
HEARTBEAT = "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"
NCCL_SUBSYSTEMS = "INIT,BOOTSTRAP,ENV,GRAPH,NVLS"
"""What NCCL tells of by default, and which links and multicast it found."""
TARGET = "suites.harness.workers.cuda:run"
PRELOAD = ("torch", "suites.harness.workers.cuda")
CLIP_SECONDS = 600.0
"""Seconds for a command; a clip of the 14B takes some tens of seconds, loading it some minutes at most."""
TIME_OUTS = TimeOuts(command_seconds=CLIP_SECONDS)
Lease = AbstractContextManager[tuple[CardState, ...]]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How ranks lie on cards."""

    backend: str
    """The backend between ranks: nccl, or gloo where they share a card."""
    capped: bool
    """Whether the plan's limit is imposed on the allocator."""
    ranks_a_card: int
    """Ranks that share one card."""


def run_on_cards(
    plan: RunPlan, clock: ClipClock, *, lease: Lease, placement: Placement, driver: DriverState
) -> RunRecord:
    """Run `plan` on the cards that `lease` gives; busy cards are an outcome as well: infrastructure."""
    cards: Sequence[CardState] = ()
    try:
        with lease as cards:
            given = card_job(plan, placement, cards)
            job = Job(
                target=TARGET,
                given=given,
                world_size=plan.tier.cards,
                env=tuple(rank_environment(given, rank) for rank in range(plan.tier.cards)),
                command_seconds=CLIP_SECONDS,
                preload=PRELOAD,
            )
            result = run_clips(job, given, plan.rounds, clock, comparable=plan.hardware == "physical")
            result = replace(result, nccl=read_nccl(plan.folder, range(plan.tier.cards)))
    except CardsUnavailable as error:
        failure = Failure(message=error.what, next_step=error.next_step)
        result = RunResult(outcome="infrastructure", failure=failure)
    return build_record(plan, result, _machine(plan, placement, driver, cards, result))


def card_job(plan: RunPlan, placement: Placement, cards: Sequence[CardState]) -> ClipJob:
    """The job of ranks on `cards`."""
    uuids = tuple(cards[rank // placement.ranks_a_card].uuid for rank in range(plan.tier.cards))
    return replace(
        clip_job(plan),
        capacity_bytes=plan.limit_bytes if placement.capped else None,
        group_seconds=TIME_OUTS.group_seconds,
        backend=placement.backend,
        card_uuids=uuids,
        alone_on_card=placement.ranks_a_card == 1,
    )


def rank_environment(given: ClipJob, rank: int) -> dict[str, str]:
    """What a rank's process is told by variables: its card, and what `nccl_environment` says."""
    card = {"CUDA_VISIBLE_DEVICES": given.card_uuids[rank], "LOCAL_RANK": "0"}
    return card | (nccl_environment(Path(given.folder), rank) if given.backend == "nccl" else {})


def nccl_environment(folder: Path, rank: int, time_outs: TimeOuts = TIME_OUTS) -> dict[str, str]:
    """NCCL writes down what it does beside the rank's log, and torch ends what is stuck in it in time.

    A heartbeat that somebody set shorter stays; a longer one would outlast the deadline of the command.
    """
    allowed = int(time_outs.heartbeat_seconds)
    return {
        "NCCL_DEBUG": os.environ.get("NCCL_DEBUG", "INFO"),
        "NCCL_DEBUG_SUBSYS": os.environ.get("NCCL_DEBUG_SUBSYS", NCCL_SUBSYSTEMS),
        "NCCL_DEBUG_FILE": str(nccl_log(folder, rank)),
        HEARTBEAT: str(min(allowed, int(os.environ.get(HEARTBEAT, allowed)))),
    }


def _machine(
    plan: RunPlan, placement: Placement, driver: DriverState, cards: Sequence[CardState], result: RunResult
) -> MachineProfile:
    tier, imitates = plan.tier, plan.hardware == "partitioned"
    first = next(iter(cards or driver.cards))
    settings = allocator_settings()
    return host_machine(
        first.name or "unknown",
        len(cards),
        result.reports,
        card_memory_bytes=first.total_bytes,
        driver=driver.version,
        imitated_card=tier.card if imitates else None,
        imitated_cards=tier.cards if imitates else None,
        link="shm" if imitates and tier.cards > 1 else tier.card_model.link,
        allocator=f"{settings}, capped at {tier.limit_bytes / GIB:.2f} GiB" if placement.capped else settings,
        **kernels(plan.recipe.deployment),
    )


def kernels(deployment: Deployment) -> dict[str, str | None]:
    """What computes on a card, as `deployment` declares it: fields of a machine profile."""
    in_16_bits = deployment.compute_dtype == "bfloat16"
    return {
        "attention_backend": deployment.attention if in_16_bits else "efficient",
        "compiler": "inductor" if deployment.compile else None,
    }


def allocator_settings() -> str:
    """The settings of torch's caching allocator, as the environment has them."""
    given = dict.fromkeys(value for name in ALLOCATOR if (value := os.environ.get(name)))
    return "; ".join(given) or "default"
