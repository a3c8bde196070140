"""Numbers of a run as a reader wants them: sizes in one unit, what was left of the limit, how fast it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liveavatar_core.config import FRAMES_PER_SECOND
from liveavatar_core.errors import GIB
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.stats import summarise

MIB = 1024**2
NAMES = {
    "oom": "out of memory",
    "host-oom": "out of host memory",
    "unsharded_parameters": "gathered parameters",
    "kv_cache": "KV cache",
    "decoder_cache": "decoder cache",
}
"""Words of the record that read better in other words."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast clips are made."""

    seconds_per_clip: float
    """Seconds of a clip: the median of those measured, or what is predicted."""
    frames_per_clip: int | None
    """Video frames of a clip; None: the recipe does not say, or the frames are a small model's."""
    note: str
    """On what it stands: `` for a measurement, else `emulated` or `predicted`."""

    @property
    def frames_per_second(self) -> float | None:
        """Video frames made each second."""
        return self.frames_per_clip / self.seconds_per_clip if self.frames_per_clip and self.seconds_per_clip else None

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of work for a second of video at 25 frames a second; 1 or less keeps up with it."""
        return self.seconds_per_clip * FRAMES_PER_SECOND / self.frames_per_clip if self.frames_per_clip else None


def speed_of(record: RunRecord) -> Speed | None:
    """How fast a run was, or would be; None: no clip was timed, nor predicted."""
    timing = record.timing
    clip = (record.recipe.declared.get("clip") or {}) if record.hardware != "miniature" else {}
    frames = clip.get("infer_frames")
    if timing.clip_seconds:
        seconds, note = summarise(timing.clip_seconds).value, "" if timing.comparable else "emulated"
    elif timing.predicted_seconds_per_clip is not None:
        seconds, note = timing.predicted_seconds_per_clip, "predicted"
    else:
        return None
    return Speed(seconds_per_clip=seconds, frames_per_clip=frames if isinstance(frames, int) else None, note=note)


def number_text(value: float | None) -> str:
    """Three digits, or a dash where there is no number."""
    return "–" if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def fitting(record: RunRecord) -> str:
    """How a run that passed fits, in words."""
    return "fits with retries" if record.retries else "fits"


def room_bytes(record: RunRecord) -> int | None:
    """Bytes of the limit that were left at the peak; less than 0: lacking. None without a limit or a reading."""
    if record.out_of_memory is not None:
        shortfall = record.out_of_memory.shortfall
        return None if shortfall is None else -shortfall
    peak = record.peak_bytes()
    return None if record.limit_bytes is None or peak is None else record.limit_bytes - peak


def room_text(record: RunRecord) -> str:
    """What was left (`+3.04 GiB`), or what was lacking (`-3.28 GiB`)."""
    unit, name = unit_of(record)
    room = room_bytes(record)
    return "–" if room is None else f"{room / unit:+.2f} {name}"


def name_of(word: str) -> str:
    """A category or an outcome, for people."""
    return NAMES.get(word, word.replace("_", " "))


def unit_of(record: RunRecord) -> tuple[int, str]:
    """Bytes and name of the unit in which this run's sizes read well."""
    size = record.limit_bytes or record.peak_bytes() or GIB
    return (GIB, "GiB") if size >= GIB else (MIB, "MiB")


def size_text(record: RunRecord, size: int | None) -> str:
    """Bytes in the run's unit."""
    unit, name = unit_of(record)
    return "no reading" if size is None else f"{size / unit:.2f} {name}"


def ranks_text(ranks: Sequence[int]) -> str:
    """`rank 2`, `ranks 0–3`, `ranks 0, 2`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if list(ranks) == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]}–{ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks))}"


def place_of(record: RunRecord) -> str:
    """The hardware mode, and the cards where there are some: a page may be about many machines."""
    machine = record.machine
    real = record.hardware in ("physical", "partitioned")
    return f"{record.hardware}, {machine.cards} × {machine.card}" if real else record.hardware
