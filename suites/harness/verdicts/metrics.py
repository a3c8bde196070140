"""The one table of metrics: which way each improves, its unit, its rounding, its tolerances, and whether it is gated.

Baselines, verdicts, updates, reports and the lint of pull requests ask it; nothing else says anything about a metric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

Direction = Literal["lower", "higher", "nearer to 0"]
WIDEST = 10.0
"""How many times the tolerance that a metric gets by default its absolute tolerance and its spread may be."""

WIDEST_REL = 0.5
"""The largest relative tolerance: what may change by half is not compared."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """A change counts where it exceeds both."""

    rel: float
    """As a part of the value."""
    abs: float
    """In the metric's unit."""


@dataclass(frozen=True, kw_only=True)
class MetricKind:
    """What is known of a metric before anything is measured."""

    name: str
    """The metric's name, or the end of the names of all metrics of this kind."""
    title: str
    """What it is, for people."""
    unit: str
    """In words that a table can show; empty: a number without a unit."""
    better: Direction = "lower"
    """Which way it improves."""
    decimals: int = 4
    """Places that a baseline keeps."""
    tolerance: Tolerance = Tolerance(rel=0.05, abs=0.01)
    """Of a new baseline; people set it afterwards."""
    counted_tolerance: Tolerance | None = None
    """The same where a program counts instead of an instrument (simulated, miniature); None: no other."""
    gated: bool = True
    """Whether a change fails a run. False: it is recorded and shown, as advice."""
    is_amount: bool = False
    """Whether it is an amount of memory or time, of which 0 is no measurement."""
    most: float = math.inf
    """No real value is larger: what exceeds it is in another unit."""

    @property
    def heading(self) -> str:
        """Title and unit, to stand over a column or a chart."""
        title = self.title[:1].upper() + self.title[1:]
        return f"{title}, {self.unit}" if self.unit else title

    def rounded(self, value: float) -> float:
        """`value` as baselines keep it."""
        return round(value, self.decimals)

    def default_tolerance(self, hardware: str) -> Tolerance:
        """The tolerance of a new entry, in a hardware mode."""
        counted = hardware in ("simulated", "miniature")
        return self.counted_tolerance if counted and self.counted_tolerance is not None else self.tolerance

    def is_believable(self, value: float) -> bool:
        """Whether `value` can be in the metric's unit."""
        return abs(value) <= self.most

    @property
    def widest_abs(self) -> float:
        """The largest absolute tolerance that still says something, in the metric's unit."""
        return WIDEST * self.tolerance.abs

    def widest_spread(self, value: float) -> float:
        """The largest interquartile range about `value` that still says something, in the metric's unit."""
        return max(abs(value), self.widest_abs)


_BYTES_REPEAT = Tolerance(rel=0.001, abs=0.0001)
"""A tracker's bytes repeat exactly: only what a point release of torch moves is let through."""
_BYTES = Tolerance(rel=0.02, abs=0.25)
"""Real allocators repeat to within 2 % and a quarter of a GiB."""
_CLOCK = Tolerance(rel=0.05, abs=0.25)
"""Clocks and clock rates."""
_ONCE_A_RUN = Tolerance(rel=0.25, abs=5.0)
"""What a run has once has no spread of its own, and loading depends on what the host has read before."""
_ARITHMETIC = Tolerance(rel=0.005, abs=0.01)
"""Predicted seconds move with the operations only."""


def _gib(name: str, title: str) -> MetricKind:
    """Memory, kept to a KiB. No card or host that this project knows of has a TiB for a process."""
    amount = {"decimals": 6, "tolerance": _BYTES, "counted_tolerance": _BYTES_REPEAT, "is_amount": True, "most": 1024.0}
    return MetricKind(name=name, title=title, unit="GiB", **amount)  # type: ignore[arg-type]


def _seconds(name: str, title: str, tolerance: Tolerance = _CLOCK, *, gated: bool = True) -> MetricKind:
    """Time, kept to a millisecond; a day is the most that a number of seconds may be."""
    amount = {"decimals": 3, "is_amount": True, "most": 86_400.0}
    return MetricKind(name=name, title=title, unit="s", tolerance=tolerance, gated=gated, **amount)  # type: ignore[arg-type]


def _cadence(name: str, title: str, unit: str, better: Direction = "lower") -> MetricKind:
    """How frames come: advice, as it follows from the seconds of clips, and on a busy host from the host."""
    return MetricKind(name=name, title=title, unit=unit, better=better, decimals=3, gated=False)


def _quality(
    name: str, title: str, unit: str, rel: float, absolute: float, better: Direction = "lower", *, gated: bool = True
) -> MetricKind:
    """Quality of a video. Tolerances: less than damage of docs/metrics.md moves it by, more than harmless damage."""
    return MetricKind(
        name=name, title=title, unit=unit, better=better, tolerance=Tolerance(rel=rel, abs=absolute), gated=gated
    )


METRICS: tuple[MetricKind, ...] = (
    _gib("load_vram_gib", "peak a card while loading"),
    _gib("peak_vram_gib", "peak a card"),
    _gib("oom_requested_gib", "request that ran out of memory"),
    _gib("oom_shortfall_gib", "memory that was lacking"),
    _seconds("seconds_per_clip", "time a clip"),
    _seconds("first_frame_seconds", "time to the first frame"),
    _seconds("load_seconds", "time to load the model", _ONCE_A_RUN),
    _seconds("compile_seconds", "making graphs and kernels", gated=False),
    _seconds("encode_seconds", "prompt, voice and portrait", gated=False),
    _seconds("prefill_seconds", "prefill", gated=False),
    _seconds("denoise_seconds_per_clip", "transformer, a clip", gated=False),
    _seconds("decode_seconds_per_clip", "VAE, a clip", gated=False),
    _seconds("communication_seconds_per_clip", "communication, a clip", gated=False),
    _seconds("waiting_seconds_per_clip", "waiting for other ranks, a clip", gated=False),
    _seconds("other_seconds_per_clip", "all else, a clip", gated=False),
    _cadence("block_interval_p50_ms", "block to block, median", "ms"),
    _cadence("block_interval_p95_ms", "block to block, 95 of 100 are quicker", "ms"),
    _cadence("block_interval_p99_ms", "block to block, 99 of 100 are quicker", "ms"),
    _cadence("frames_per_second", "frames made each second", "frames/s", "higher"),
    _cadence("real_time_factor", "work for a second of video at 25 frames a second", "s"),
    _cadence("underruns_count", "a viewer with a buffer of 1 s runs dry", "times"),
    _cadence("stalled_seconds", "that viewer's picture stands still", "s"),
    _seconds("predicted_seconds_per_clip", "predicted time a clip", _ARITHMETIC),
    _quality("nan_blocks_count", "blocks with a latent that is not finite", "blocks", 0.0, 0.5),
    _quality("black_frames_share", "frames that show nothing", "", 0.0, 0.005),
    _quality("frozen_frames_share", "frames that repeat the one before", "", 0.0, 0.03),
    _quality("first_frame_jump_ratio", "change within the first latent frame, over later ones", "", 0.3, 1.0),
    _quality("clip_jump_ratio", "change from clip to clip, over that of other frames", "", 0.3, 1.0),
    _quality("flicker_levels", "swing of brightness beyond motion", "levels of 255", 0.3, 0.2),
    _quality("sharpness_ratio", "fine detail over contrast", "", 0.1, 0.02, "higher"),
    _quality("sharpness_kept_ratio", "sharpness over that of the reference", "", 0.1, 0.02, "higher"),
    _quality("sharpness_loss_share_per_clip", "part of the sharpness lost with each clip", "", 0.0, 0.04),
    _quality("colour_drift_levels_per_clip", "colours moved with each clip", "levels of 255", 0.2, 1.0),
    _quality("identity_drift_per_clip", "likeness to the first clip lost with each clip", "", 0.2, 0.02),
    _quality("lip_sync_strength", "correlation of mouth and voice", "", 0.0, 0.1, "higher"),
    # Half a frame is 20 ms.
    _quality("lip_sync_lag_ms", "how late the mouth is", "ms", 0.0, 20.0, "nearer to 0"),
    _quality("picture_beyond_sound_ms", "how much longer picture than sound lasts", "ms", 0.0, 20.0, "nearer to 0"),
    _quality("latent_cosine", "likeness of latents to the reference", "", 0.0, 0.001, "higher"),
    _quality("psnr_db", "likeness of frames to the reference", "dB", 0.0, 1.0, "higher"),
    # Kernels that differ in the last bit move these.
    _quality("ssim", "structural similarity to the reference", "", 0.05, 0.01, "higher", gated=False),
    _quality("vmaf_score", "VMAF against the reference", "", 0.05, 0.01, "higher", gated=False),
)
"""Every metric that this project measures."""

FAMILIES: tuple[MetricKind, ...] = (
    _gib("gib", "memory"),
    _seconds("seconds", "time"),
    *(
        MetricKind(name=word, title=title, unit=unit)
        for word, title, unit in (
            ("mib", "memory", "MiB"),
            ("ms", "time", "ms"),
            ("frames", "frames", "frames"),
            ("count", "number", ""),
            ("percent", "part", "%"),
            ("share", "part", ""),
            ("ratio", "ratio", ""),
            ("cosine", "likeness", ""),
            ("drift", "drift", ""),
            ("error", "error", ""),
            ("distance", "distance", ""),
            ("score", "score", ""),
            ("strength", "strength", ""),
            ("levels", "brightness", "levels of 255"),
            ("db", "ratio", "dB"),
            ("degrees", "angle", "degrees"),
            ("hz", "frequency", "Hz"),
            ("celsius", "temperature", "°C"),
            ("watts", "power", "W"),
        )
    ),
)
"""What a name of which the table knows no more than the unit means: one of its words is the family's name."""

WITHOUT_UNIT = MetricKind(name="", title="metric without a unit in its name", unit="?")
"""What is known of any other name: nothing. The lint refuses it in a pull request."""


@cache
def metric_kind(name: str) -> MetricKind:
    """What is known of the metric `name`: its own row, else the row whose name ends it, else that of its unit."""
    for kind in METRICS:
        if name == kind.name:
            return kind
    for kind in METRICS:
        if name.endswith(f"_{kind.name}"):
            return kind
    words = name.lower().split("_")
    return next((kind for kind in FAMILIES if kind.name in words), WITHOUT_UNIT)


def worsening(name: str, before: float, after: float) -> float:
    """By how much the metric of that name got worse, in its unit; less than 0: better."""
    better = metric_kind(name).better
    if better == "nearer to 0":
        return abs(after) - abs(before)
    return after - before if better == "lower" else before - after
