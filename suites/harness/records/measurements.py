"""What is measured of one run: memory by rank and phase, seconds, which settings were seen to act."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from liveavatar_core.errors import BadData
from liveavatar_core.simulation.allocator_verdict import AllocatorVerdict
from suites.harness.records.run_times import FrameArrivals, PartSeconds

Phase = Literal["load", "encode", "prefill", "denoise", "decode"]


@dataclass(frozen=True, kw_only=True)
class PhaseMemory:
    """The most that a rank held in a phase, in bytes. What was not read is None, with why in `missing`."""

    rank: int
    phase: Phase
    allocated_bytes: int | None
    """Bytes in live tensors, rounded as the allocator does. The only one of the three that is gated."""
    reserved_bytes: int | None
    """Bytes that the allocator kept; depends on the history of the process."""
    device_used_bytes: int | None
    """Bytes in use on the card as NVML tells."""
    by_category: dict[str, int] | None
    """`allocated_bytes` at that moment, by category."""
    host_bytes: int | None = None
    """Host memory: of a tracker's tensors, or of the whole process where there is a card."""
    missing: dict[str, str] = field(default_factory=dict)
    """The reason why a field is None, by the field's name."""

    def __post_init__(self) -> None:
        _check_missing(self, ("allocated_bytes", "reserved_bytes", "device_used_bytes", "by_category"))


@dataclass(frozen=True, kw_only=True)
class MemoryTimeline:
    """How full a rank's card was while the run went on: fullest moments of stretches, in columns of one length."""

    rank: int
    phases: tuple[Phase, ...]
    """The phase of the rank in each stretch."""
    starts: tuple[int, ...]
    """The place of each stretch on the axis."""
    bytes_by_category: dict[str, tuple[int, ...]]
    """Bytes held, by category; of a real card what is allocated, and what its allocator keeps beyond that."""
    axis: Literal["allocations", "milliseconds"] = "allocations"
    """Allocations on the card until then, as a simulation reads no clock; or time since the rank began."""

    def __post_init__(self) -> None:
        for name, column in {"starts": self.starts, **self.bytes_by_category}.items():
            if len(column) != len(self.phases):
                raise BadData(f"timeline of rank {self.rank}: {len(column)} {name}", f"give {len(self.phases)}")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of wall clock. What could not be measured is None and named in `missing`."""

    load_seconds: float | None = None
    """Seconds from starting the first process until every rank has its weights in place."""
    first_frame_seconds: float | None = None
    """Seconds from the request to the first decoded frame, weights in place."""
    warm_up_clips: int = 0
    """Clips that were declared to come before those that count."""
    measured_clips: int = 0
    """Clips that were declared to count; 0: nothing was declared."""
    warm_up_seconds: tuple[float, ...] = ()
    """Seconds of each clip that came before: with what a video does once, and in no median."""
    clip_seconds: tuple[float, ...] = ()
    """Seconds of each measured clip, end to end: denoising, exchanges, decoding, the video written."""
    parts: tuple[PartSeconds, ...] = ()
    """Where these seconds went on each rank; and those of loading, compiling, encoding and prefilling."""
    arrivals: FrameArrivals = FrameArrivals()
    """When the frames of the measured clips came."""
    predicted_seconds_by_part: dict[str, float] = field(default_factory=dict)
    """What a simulation says of the slowest rank, under the names of `parts`, nothing overlapping."""
    predicted_seconds_per_clip: float | None = None
    """Seconds of one more clip, once caches are full: from operations, traffic and the data sheet, none overlapping."""
    predicted_first_clip_seconds: float | None = None
    """Seconds of the first clip, whose caches are not full, and in which the decoder begins."""
    communication_share: float | None = None
    """Part of these seconds spent in collectives, 0 to 1."""
    least_predicted_seconds_per_clip: float | None = None
    """Predicted seconds with gathers of weights hidden behind kernels, as far as there are any."""
    least_communication_share: float | None = None
    """Part of those seconds spent in collectives that nothing hides."""
    comparable: bool = False
    """Whether measured seconds may be compared with a baseline: false where cards are imitated."""
    missing: dict[str, str] = field(default_factory=dict)
    """The reason why a field is None or empty, by the field's name."""


@dataclass(frozen=True, kw_only=True)
class ObservedSettings:
    """Settings that one rank was seen to act by: counted and looked up while it works, never copied from its recipe."""

    rank: int
    """The rank's number."""
    transformer_forwards: dict[str, int]
    """Forwards of the transformer by kind: prefill, denoise."""
    parameter_bytes: dict[str, dict[str, int]]
    """Bytes of weights held (shards, where a part is sharded), by part, then by type and place: `bfloat16 card`."""
    kv_caches: tuple[str, ...]
    """Types and places that KV caches were seen in."""
    latent_sizes: tuple[str, ...] = ()
    """Sizes of the latents that the transformer took, height by width: `48x88`."""
    frame_sizes: tuple[str, ...] = ()
    """Sizes of the frames that it decoded, in pixels, height by width."""
    attention_kernels: dict[str, int] = field(default_factory=dict)
    """Times that attention was computed in prefill and denoise, by the kernel that did: flash, cudnn, efficient;
    `softmax` where none did. None in a simulation, which computes nothing."""

    def bytes_of(self, part: str, *, dtype: str | None = None, place: str | None = None) -> int:
        """Bytes of weights of a part of the model, of that type and in that place where they are given."""
        found = 0
        for kind, size in self.parameter_bytes.get(part, {}).items():
            its_dtype, its_place = kind.split()
            found += size if dtype in (None, its_dtype) and place in (None, its_place) else 0
        return found


@dataclass(frozen=True, kw_only=True)
class CardConditions:
    """Conditions that held the cards of a run back, as NVML tells."""

    slowed_by: tuple[str, ...] = ()
    """Reasons for lower clocks that were seen: power cap, hardware thermal slowdown, ..."""
    most_watts: float | None = None
    """The most power that one card took; None where no card tells."""


@dataclass(frozen=True, kw_only=True)
class SimulatedRole:
    """One rank that was executed on fake tensors, and what its clip's seconds are made of."""

    rank: int
    """The rank that was executed."""
    stands_for: tuple[int, ...]
    """All ranks that do the same, itself among them."""
    units_executed: int
    """Calls of blocks, injectors, ... that were executed."""
    units_repeated: int
    """Calls whose recorded effect stands for them."""
    predicted_seconds_by_kind: dict[str, float] = field(default_factory=dict)
    """Predicted seconds of a clip by what they are spent on; empty where no clip was made."""
    expandable_segments: AllocatorVerdict | None = None
    """Where it ran out of memory to fragmentation: what that setting would come to, if that is better."""


def _check_missing(reading: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(reading, name)
        if value is None and not reading.missing.get(name):
            raise BadData(f"{type(reading).__name__}.{name} is null without a reason", f"say why in missing[{name!r}]")
        if isinstance(value, int) and value < 0:
            raise BadData(f"{type(reading).__name__}.{name} is {value}", "give bytes, or None with a reason")
