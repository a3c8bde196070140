"""What a run's seconds come to: parts of it, and the cadence of its frames. Names are rows of metrics.py. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from liveavatar_core.config import FRAMES_PER_SECOND
from suites.harness.records.measurements import Timing
from suites.harness.records.run_times import ONCE, PARTS_OF_TIME, FrameArrivals
from suites.harness.verdicts.stats import quantile

Samples = tuple[float, ...]
VIEWER_BUFFER_SECONDS = 1.0
"""Seconds of video that the viewer holds before it shows any, and again after it ran dry: about two blocks."""


@dataclass(frozen=True, kw_only=True)
class Viewing:
    """How somebody would see the measured clips who watches them while they are made."""

    underruns: int
    """How often the picture stood still for want of frames. Waiting for the first one is none."""
    stalled_seconds: float
    """For how long, altogether."""


def part_name(part: str) -> str:
    """The metric of a part's seconds."""
    return f"{part}_seconds" if part in ONCE else f"{part}_seconds_per_clip"


def part_samples(timing: Timing) -> dict[str, Samples]:
    """Seconds of each part on the rank that took longest for it, clip by clip, by the part's name."""
    found: dict[str, Samples] = {}
    for part in PARTS_OF_TIME:
        ranks = [each.seconds for each in timing.parts if each.part == part]
        if ranks:
            found[part] = tuple(max(clip) for clip in zip(*ranks, strict=True))
    return found


def time_samples(timing: Timing) -> dict[str, Samples]:
    """Every metric of time that was measured, gated or not, by name."""
    found = {
        "load_seconds": _one(timing.load_seconds),
        "first_frame_seconds": _one(timing.first_frame_seconds),
        "seconds_per_clip": timing.clip_seconds,
        **{part_name(part): samples for part, samples in part_samples(timing).items() if part != "load"},
        **dict(_cadence(timing.arrivals)),
    }
    return {name: samples for name, samples in found.items() if samples}


def _one(value: float | None) -> Samples:
    return () if value is None else (value,)


def _cadence(arrivals: FrameArrivals) -> Iterator[tuple[str, Samples]]:
    """What needs an interval between blocks, where there is one."""
    intervals = block_intervals(arrivals)
    if not intervals:
        return
    for percent in (50, 95, 99):
        yield f"block_interval_p{percent}_ms", (1000 * quantile(intervals, percent / 100),)
    rate = sum(arrivals.frames[1:]) / sum(intervals) if sum(intervals) else 0.0
    if rate:
        yield "frames_per_second", (rate,)
        yield "real_time_factor", (FRAMES_PER_SECOND / rate,)
    seen = watch(arrivals)
    yield "underruns_count", (float(seen.underruns),)
    yield "stalled_seconds", (seen.stalled_seconds,)


def block_intervals(arrivals: FrameArrivals) -> Samples:
    """Seconds from each block of the measured clips to the next one."""
    return tuple(later - earlier for earlier, later in pairwise(arrivals.seconds))


def watch(arrivals: FrameArrivals, buffer_seconds: float = VIEWER_BUFFER_SECONDS) -> Viewing:
    """What a viewer sees who begins with the first of these blocks, and shows 25 frames a second.

    buffer_seconds: of video that it holds before it shows any, and again once it ran dry; all there is at the end.
    """
    underruns, stalled = 0, 0.0
    held = played_until = 0.0  # seconds of video; the moment at which what is held has been shown
    shows, dry_since = False, None
    for arrived, frames in zip(arrivals.seconds, arrivals.frames, strict=True):
        if shows and arrived > played_until:
            underruns, dry_since, shows, held = underruns + 1, played_until, False, 0.0
        held += frames / FRAMES_PER_SECOND
        if shows:
            played_until += frames / FRAMES_PER_SECOND
        elif held >= buffer_seconds:
            stalled += 0.0 if dry_since is None else arrived - dry_since
            shows, dry_since, played_until = True, None, arrived + held
    if dry_since is not None:  # the rest came, and is less than a buffer
        stalled += arrivals.seconds[-1] - dry_since
    return Viewing(underruns=underruns, stalled_seconds=stalled)
