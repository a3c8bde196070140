"""What ranks told of their time becomes the record's. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from liveavatar_core.deployment import Deployment
from liveavatar_core.parallel.ranks import decode_rank, role_of
from suites.harness.cases.clip_rounds import ClipRounds
from suites.harness.messages import ClipTime, Loaded
from suites.harness.records.measurements import Timing
from suites.harness.records.run_times import ONCE, PARTS_OF_TIME, FrameArrivals, PartSeconds

Clip = Sequence[ClipTime]
"""What each rank told of one clip, in order of rank."""


@dataclass(frozen=True, kw_only=True)
class ClipTimes:
    """What the ranks of a run that passed told of their time."""

    rounds: ClipRounds
    """What was declared."""
    load_seconds: float | None
    """Seconds from starting the first process until every rank had its weights; None: others started them."""
    loaded: Sequence[Loaded]
    """What each rank told when it had loaded."""
    clips: Sequence[Clip]
    """All clips, in order."""

    def timing(self, deployment: Deployment, *, comparable: bool) -> Timing:
        """The record's form. A clip takes as long as its slowest rank."""
        made, shown = self.rounds.of(len(self.clips)), [clip[decode_rank(deployment)] for clip in self.clips]
        seconds = tuple(max(rank.seconds for rank in clip) for clip in self.clips)
        return Timing(
            load_seconds=self.load_seconds,
            first_frame_seconds=shown[0].block_seconds[0],
            warm_up_clips=self.rounds.warm_up,
            measured_clips=self.rounds.measured,
            warm_up_seconds=seconds[: made.warm_up],
            clip_seconds=seconds[made.warm_up :],
            parts=tuple(self._parts(deployment, self.clips[made.warm_up :])),
            arrivals=_arrivals(shown[made.warm_up :]),
            comparable=comparable,
            missing=dict(self._missing(made)),
        )

    def _missing(self, made: ClipRounds) -> Iterator[tuple[str, str]]:
        yield "predicted_seconds_per_clip", "measured"
        if self.load_seconds is None:
            yield "load_seconds", "ranks were started elsewhere"
        if made.measured < self.rounds.measured:
            declared = f"{self.rounds.warm_up} to warm up and {self.rounds.measured} to measure"
            yield "clip_seconds", f"{made.total} clips were made, and {declared} are declared"

    def _parts(self, deployment: Deployment, measured: Sequence[Clip]) -> Iterator[PartSeconds]:
        apart = [_waiting_apart(clip, deployment) for clip in measured]
        for rank, loaded in enumerate(self.loaded):
            whole = [loaded.seconds_by_part, *(clip[rank].seconds_by_part for clip in self.clips)]
            for part in PARTS_OF_TIME:
                if part in ONCE:
                    seconds: tuple[float, ...] = (sum(told.get(part, 0.0) for told in whole),)
                else:
                    seconds = tuple(clip[rank].get(part, 0.0) for clip in apart)
                if any(seconds):
                    yield PartSeconds(rank=rank, part=part, seconds=seconds)


def _waiting_apart(clip: Clip, deployment: Deployment) -> list[dict[str, float]]:
    """Seconds by part of each rank, in which no communication is a wait for a rank that came late.

    Ranks of one role meet in the same collectives, and whoever came last to them waited least: what the others have
    beyond that rank's communication is waiting.
    """
    roles = [role_of(deployment, rank) for rank in range(len(clip))]
    told = [dict(rank.seconds_by_part) for rank in clip]
    for parts, role in zip(told, roles, strict=True):
        met = [
            other.seconds_by_part.get("communication", 0.0)
            for other, its in zip(clip, roles, strict=True)
            if its == role
        ]
        beyond = parts.get("communication", 0.0) - min(met)
        if beyond > 0:
            parts["communication"] -= beyond
            parts["waiting"] = parts.get("waiting", 0.0) + beyond
    return told


def _arrivals(shown: Sequence[ClipTime]) -> FrameArrivals:
    """Of the rank whose frames are the video; others may decode too."""
    return FrameArrivals(
        seconds=tuple(seconds for clip in shown for seconds in clip.block_seconds),
        frames=tuple(frames for clip in shown for frames in clip.block_frames),
    )
