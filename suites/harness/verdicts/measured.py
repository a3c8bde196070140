"""The metrics of one run, taken out of its record. Names carry the unit; `metrics.py` says what each means."""

from __future__ import annotations

import math
from dataclasses import dataclass

from liveavatar_core.errors import GIB
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.metrics import metric_kind
from suites.harness.verdicts.stats import Summary, summarise


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric of one run."""

    name: str
    """With its unit."""
    samples: tuple[float, ...]
    """Readings; none, if there was no reading."""
    reason: str | None = None
    """Why there is none."""

    @property
    def summary(self) -> Summary:
        """Of the samples; NaN without any."""
        return summarise(self.samples or (math.nan,))

    @property
    def value(self) -> float:
        """The median."""
        return self.summary.value


def metrics(record: RunRecord) -> dict[str, Metric]:
    """What of `record` is gated, by name. A run that neither passed nor ran out of memory has none.

    Gated are bytes allocated (never reserved or used on the device), measured seconds of loading, of the first frame
    and of a clip where they can be compared, predicted seconds, the request that ran out of memory, and quality; of a
    video of random weights only whether its latents are numbers.
    """
    if record.outcome not in ("pass", "oom"):
        return {}
    found = _memory(record) + (_shortage(record) if record.outcome == "oom" else _seconds(record))
    gated = {name: value for name, value in record.quality.items() if metric_kind(name).gated}
    if record.hardware in ("physical", "partitioned") and not record.recipe.weights_digest:
        gated = {name: value for name, value in gated.items() if name == "nan_blocks_count"}
    found += [Metric(name=name, samples=(value,)) for name, value in gated.items()]
    return {metric.name: metric for metric in found}


def _memory(record: RunRecord) -> list[Metric]:
    """The peak of a run that ran out says only when it stopped, so it is gated for runs that passed."""
    load = _gib("load_vram_gib", record, "load")
    return [load] if record.outcome == "oom" else [load, _gib("peak_vram_gib", record, None)]


def _gib(name: str, record: RunRecord, phase: str | None) -> Metric:
    readings = [each for each in record.memory if phase in (None, each.phase)]
    missing = [each for each in readings if each.allocated_bytes is None]
    if missing or not readings:
        reason = missing[0].missing["allocated_bytes"] if missing else f"no reading of phase {phase}"
        return Metric(name=name, samples=(), reason=reason)
    most = record.peak_bytes(phase=phase)
    return Metric(name=name, samples=() if most is None else (most / GIB,))


def _shortage(record: RunRecord) -> list[Metric]:
    details = record.out_of_memory
    if details is None:
        return []
    sizes = {"oom_requested_gib": details.requested, "oom_shortfall_gib": details.shortfall}
    return [_size_asked(name, size) for name, size in sizes.items()]


def _size_asked(name: str, size: int | None) -> Metric:
    if size is None:
        return Metric(name=name, samples=(), reason="the library that ran out does not say of how many bytes")
    return Metric(name=name, samples=(size / GIB,))


def _seconds(record: RunRecord) -> list[Metric]:
    timing, found = record.timing, []
    if timing.comparable:
        found += [_clips(record), *_once("first_frame_seconds", timing.first_frame_seconds, record, required=True)]
        found += _once("load_seconds", timing.load_seconds, record, required=False)
    if timing.predicted_seconds_per_clip is not None:
        found.append(_timed("predicted_seconds_per_clip", (timing.predicted_seconds_per_clip,), None))
    return found


def _clips(record: RunRecord) -> Metric:
    """The median of the measured clips; of fewer than are declared there is none."""
    timing = record.timing
    enough = len(timing.clip_seconds) >= timing.measured_clips
    return _timed("seconds_per_clip", timing.clip_seconds if enough else (), timing.missing.get("clip_seconds"))


def _once(name: str, value: float | None, record: RunRecord, *, required: bool) -> list[Metric]:
    """What a run has once. `required`: it is missed where it is not there."""
    if value is None and not required:
        return []
    return [_timed(name, () if value is None else (value,), record.timing.missing.get(name))]


def _timed(name: str, samples: tuple[float, ...], reason: str | None) -> Metric:
    return Metric(name=name, samples=samples, reason=None if samples else reason or "not measured")
