"""Ranks that really run: load, clip after clip, finish; what that came to. Free of torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from suites.harness.cases.clip_rounds import ClipRounds
from suites.harness.cases.run_plan import RunPlan
from suites.harness.messages import ClipJob, ClipTime, Loaded, RankReport
from suites.harness.probes.video.measured_video import read_video
from suites.harness.probes.video.quality import Quality, quality_of
from suites.harness.processes.failures import GroupError
from suites.harness.processes.rank_group import Job, RankGroup
from suites.harness.pytest_plugin.clip_clock import ClipClock
from suites.harness.records.clip_times import ClipTimes
from suites.harness.records.run_result import RunResult, failed_result

PRELOAD = ("torch", "suites.harness.workers.simulate", "suites.harness.workers.miniature")
"""Imported once for all groups of ranks: starting them would take longer than what they do."""


def clip_job(plan: RunPlan, *, kept: Path | None = None) -> ClipJob:
    """The job of ranks without cards; those on cards are told more. `kept`: file for frames and latents."""
    return ClipJob(
        recipe=plan.recipe,
        folder=str(plan.folder),
        video=str(plan.video),
        kept=str(kept) if kept else None,
        capacity_bytes=plan.limit_bytes,
    )


def run_clips(job: Job, given: ClipJob, rounds: ClipRounds, clock: ClipClock, *, comparable: bool = False) -> RunResult:
    """Run `job`, whose ranks are given `given`.

    rounds: what is declared of its clips. comparable: no card is imitated, so seconds may be compared.
    """
    group: RankGroup | None = None
    started = time.monotonic()
    try:
        group = RankGroup.start(job, Path(given.folder))
        with group:
            loaded = group.command("load", answer=Loaded)
            load_seconds = time.monotonic() - started
            answers = group.commands("clip", loaded[0].clips, answer=ClipTime)
            clips = clock(lambda: next(answers), rounds.of(loaded[0].clips))
            reports = tuple(group.command("finish", answer=RankReport))
    except GroupError as error:
        told = group.last_reports if group else []
        return failed_result(error, tuple(each for each in told if each is not None))
    times = ClipTimes(rounds=rounds, load_seconds=load_seconds, loaded=loaded, clips=clips)
    return passed_result(given, times, reports, comparable=comparable)


def passed_result(given: ClipJob, times: ClipTimes, reports: tuple[RankReport, ...], *, comparable: bool) -> RunResult:
    """The result of a run whose ranks all finished; looks through the video that they made."""
    return RunResult(
        outcome="pass",
        reports=reports,
        timing=times.timing(given.recipe.deployment, comparable=comparable),
        quality=video_quality(given, reports),
    )


def video_quality(given: ClipJob, reports: Sequence[RankReport]) -> Quality:
    """The quality of the mp4 as people see it, and the blocks that were not finite as ranks counted them."""
    nan_blocks = next((each.nan_blocks for each in reports if each.nan_blocks is not None), None)
    video = read_video(Path(given.video), nan_blocks)
    return quality_of(video, clip_frames=given.recipe.clip.infer_frames)
