"""A run record from what ranks answered. Free of torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from liveavatar_core import strict
from liveavatar_core.errors import OutOfMemory
from suites.harness.probes.film.film import read_film
from suites.harness.probes.film.quality import Quality, quality_of
from suites.harness.processes.failures import GroupError
from suites.harness.processes.rank_group import Job, RankGroup
from suites.harness.pytest_plugin.clip_clock import ClipClock
from suites.harness.records.record import (
    Failure,
    MachineProfile,
    MemoryTimeline,
    OutOfMemoryDetails,
    Phase,
    PhaseMemory,
    Timing,
)
from suites.harness.records.working_tree import commit_at_start

PRELOAD = ("torch", "suites.harness.workers.simulate", "suites.harness.workers.miniature")
"""Imported once for all groups of ranks: starting them would take longer than what they do."""
NO_ALLOCATOR = "the tracker counts tensors; there is no allocator to keep memory in reserve"
NO_CARD = "there is no card"


def phase_memory(readings: Iterable[dict[str, Any]]) -> tuple[PhaseMemory, ...]:
    """Readings of a tracker, in the record's form."""
    return tuple(map(_phase_memory, sorted(readings, key=lambda reading: reading["rank"])))


def _phase_memory(reading: dict[str, Any]) -> PhaseMemory:
    """Reserved bytes are there where the caching allocator was modelled."""
    missing = {"device_used_bytes": NO_CARD} | ({} if "reserved_bytes" in reading else {"reserved_bytes": NO_ALLOCATOR})
    return PhaseMemory(**({"reserved_bytes": None} | reading), device_used_bytes=None, missing=missing)


def timelines(replies: Iterable[dict[str, Any]]) -> tuple[MemoryTimeline, ...]:
    """Timelines of a tracker, in the record's form, by rank; empty where ranks told of none."""
    told = {reply["timeline"]["rank"]: reply["timeline"] for reply in replies if "timeline" in reply}
    return tuple(strict.build(MemoryTimeline, told[rank], f"timeline of rank {rank}") for rank in sorted(told))


def run_clips(job: Job, folder: Path, clock: ClipClock) -> tuple[dict[str, Any], list[dict[str, Any]], str | None]:
    """Load and make every clip: outcome and seconds, what ranks told last, and version of torch."""
    group: RankGroup | None = None
    try:
        group = RankGroup.start(job, folder)
        with group:
            loaded = group.command("load")
            clips = clock(lambda: group.command("clip"), loaded[0]["clips"])
            replies = group.command("finish")
    except GroupError as error:
        return failure_of(error), group.last_events if group else [], None
    fields = {"outcome": "pass", "timing": clip_timing(clips)} | film_quality(job.payload, replies)
    return fields, replies, torch_of(replies)


def film_quality(payload: dict[str, Any], replies: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the mp4, as people see it, as fields of a record."""
    nan_blocks = next((reply["nan_blocks"] for reply in replies if "nan_blocks" in reply), None)
    film = read_film(Path(payload["video"]), nan_blocks)
    return quality_fields(quality_of(film, clip_frames=payload["recipe"].clip.infer_frames))


def quality_fields(quality: Quality) -> dict[str, Any]:
    """In the record's form."""
    return {"quality": quality.values, "quality_missing": quality.missing}


def failure_of(error: GroupError) -> dict[str, Any]:
    """Outcome and explanation of a group that failed, as fields of a record."""
    lead = error.lead
    if isinstance(lead.error, OutOfMemory):
        others = tuple(failure.rank for failure in error.failures[1:] if failure.kind == "oom")
        return {"outcome": "oom", "out_of_memory": OutOfMemoryDetails.of(lead.error, others)}
    failure = Failure(
        message=lead.message.splitlines()[0],
        rank=lead.rank,
        phase=cast(Phase | None, lead.phase or None),
        next_step=error.next_step,
        detail=lead.detail,
    )
    return {"outcome": lead.kind, "failure": failure}


def knobs(replies: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What each rank proved, by its number, up to where it ended; of one that proved nothing, why."""
    told = [(str(rank), reply) for rank, reply in enumerate(replies)]
    found = {
        "proven_by_rank": {rank: reply["knobs"] for rank, reply in told if "knobs" in reply},
        "unproven_by_rank": {rank: reply["unproven"] for rank, reply in told if "unproven" in reply},
    }
    return {name: ranks for name, ranks in found.items() if ranks}


def clip_timing(clips: list[list[dict[str, Any]]], *, comparable: bool = False) -> Timing:
    """A clip takes as long as its slowest rank. `comparable`: no card was imitated."""
    first = [reply["first_frame_seconds"] for reply in clips[0] if reply["first_frame_seconds"] is not None]
    return Timing(
        clip_seconds=tuple(max(reply["seconds"] for reply in replies) for replies in clips),
        first_frame_seconds=max(first),
        comparable=comparable,
        missing={"predicted_seconds_per_clip": "measured"},
    )


def host_machine(
    card: str, cards: int, torch: str | None, *, allocator: str = "tracker", **values: Any
) -> MachineProfile:
    """This machine, with cards or imitating some."""
    return MachineProfile(
        card=card,
        cards=cards,
        torch=torch,
        allocator=allocator,
        host_cpu=platform.processor() or platform.machine(),
        host_cores=os.cpu_count(),
        **values,
    )


def provenance() -> dict[str, Any]:
    """Commit, date and runner, as fields of a record."""
    return {
        "commit": commit_at_start(),
        "date": datetime.now(UTC).date(),
        "run": os.environ.get("LIVEAVATAR_RUN", "local"),
    }


def torch_of(replies: list[dict[str, Any]]) -> str | None:
    """The version of torch that ranks told of."""
    return next((reply["torch"] for reply in replies if "torch" in reply), None)
