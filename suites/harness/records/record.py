"""What one run measured, and where: all that reports, baselines and claims read."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from liveavatar_core import errors, strict
from liveavatar_core.config import Recipe
from liveavatar_core.errors import BadData
from liveavatar_core.outputs import not_a_file

SCHEMA = 2
HARDWARE_MODES = ("physical", "partitioned", "simulated", "miniature")
"""Most real first."""
OUTCOMES = ("pass", "oom", "host-oom", "unsupported", "hang", "crash", "infrastructure")

HardwareName = Literal["physical", "partitioned", "simulated", "miniature"]
Outcome = Literal["pass", "oom", "host-oom", "unsupported", "hang", "crash", "infrastructure"]
Phase = Literal["load", "encode", "prefill", "denoise", "decode"]


@dataclass(frozen=True, kw_only=True)
class DeclaredRecipe:
    """What was asked for."""

    name: str
    """How people call it."""
    hash: str
    """Eight hex digits over the declared inputs."""
    declared: dict[str, Any]
    """Every declared input, defaults included: clip, model, deployment."""

    @classmethod
    def of(cls, recipe: Recipe) -> DeclaredRecipe:
        """The record's form of `recipe`."""
        declared = json.loads(json.dumps(asdict(recipe)))
        del declared["name"]
        return cls(name=recipe.name, hash=recipe.hash, declared=declared)


@dataclass(frozen=True, kw_only=True)
class MachineProfile:
    """Exactly on what a run stood. None: it has no part in the hardware mode (a simulation has no driver)."""

    card: str
    """The card as its driver names it, form factor included; the imitated card where none is present."""
    cards: int
    """Cards that took part: one process each, but for the partitioned mode."""
    card_memory_bytes: int | None = None
    """Memory of one card as the driver gives it."""
    imitated_card: str | None = None
    """The card (of cards.toml) whose usable memory was imposed, where it is not `card` itself."""
    imitated_cards: int | None = None
    """How many of it."""
    driver: str | None = None
    """Version of the card's driver."""
    cuda: str | None = None
    """Version of CUDA that torch was built with."""
    torch: str | None = None
    """Version of torch."""
    link: str | None = None
    """Between cards: nvlink4, pcie4, …; `shm` for processes that share a card or have none."""
    allocator: str | None = None
    """Settings of torch's caching allocator (PYTORCH_CUDA_ALLOC_CONF, cap); `tracker` for a simulated one."""
    attention_backend: str | None = None
    """The kernel that attention used."""
    cpu_kernels: str | None = None
    """Where no card computes: what bfloat16 is multiplied in, `native` or `float32, rounded` (core's cpu_kernels)."""
    host_cpu: str | None = None
    """Model of the processor."""
    host_cores: int | None = None
    """Cores that the run could use."""


@dataclass(frozen=True, kw_only=True)
class OutOfMemoryDetails:
    """Where and by how much a card was too small. Sizes are bytes."""

    rank: int
    phase: Phase
    category: str
    """What the memory was asked for; one of the core's CATEGORIES."""
    requested: int
    free: int
    capacity: int
    """What the card may hold."""
    holders: dict[str, int] = field(default_factory=dict)
    """Bytes held at that moment, by category."""
    other_ranks: tuple[int, ...] = ()
    """Ranks that ran out as well, within the same moment."""

    @classmethod
    def of(cls, error: errors.OutOfMemory, other_ranks: tuple[int, ...] = ()) -> OutOfMemoryDetails:
        """The record's form of the core's error."""
        names = ("rank", "phase", "category", "requested", "free", "capacity", "holders")
        return cls(**{name: getattr(error, name) for name in names}, other_ranks=other_ranks)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a run ended that neither passed nor ran out of a card's memory."""

    message: str
    """One line."""
    rank: int | None = None
    """The rank that failed first, where it is known."""
    phase: Phase | None = None
    """What it was doing, where that is known."""
    next_step: str = "read the rank's output in the report directory"
    """What to do about it."""
    detail: str = ""
    """The end of the rank's output."""


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
    """Field that is None: reason."""

    def __post_init__(self) -> None:
        _check_missing(self, ("allocated_bytes", "reserved_bytes", "device_used_bytes", "by_category"))


@dataclass(frozen=True, kw_only=True)
class MemoryTimeline:
    """How full a rank's card was while the run went on: fullest moments of stretches, in columns of one length."""

    rank: int
    phases: tuple[Phase, ...]
    """What the rank was doing."""
    births: tuple[int, ...]
    """Where each stretch lies on the axis."""
    bytes_by_category: dict[str, tuple[int, ...]]
    """Bytes held, by category; of a real card what is allocated, and what its allocator keeps beyond that."""
    axis: Literal["births", "milliseconds"] = "births"
    """Tensors born on the card until then, as a simulation reads no clock; or time since the rank began."""

    def __post_init__(self) -> None:
        for name, column in {"births": self.births, **self.bytes_by_category}.items():
            if len(column) != len(self.phases):
                raise BadData(f"timeline of rank {self.rank}: {len(column)} {name}", f"give {len(self.phases)}")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of wall clock. What could not be measured is None and named in `missing`."""

    load_seconds: float | None = None
    """From the first process to weights in place."""
    compile_seconds: float | None = None
    """Compilation and other warming up."""
    first_frame_seconds: float | None = None
    """From the request to the first decoded frame, weights in place."""
    clip_seconds: tuple[float, ...] = ()
    """Each measured clip, end to end: conditioning of that clip, denoising, decoding."""
    predicted_seconds_per_clip: float | None = None
    """From operations, traffic and the card's data sheet, nothing overlapping; no clock was read."""
    communication_share: float | None = None
    """Part of these seconds spent in collectives, 0 to 1."""
    least_predicted_seconds_per_clip: float | None = None
    """The same with gathers of weights hidden behind kernels, as far as there are any: the truth lies between."""
    least_communication_share: float | None = None
    """Part of those seconds spent in collectives that nothing hides."""
    comparable: bool = False
    """Whether measured seconds may be compared with a baseline: false where cards are imitated."""
    missing: dict[str, str] = field(default_factory=dict)
    """Field that is None or empty: reason."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run. `memory` has an entry for each rank and phase that was reached."""

    schema: int = SCHEMA
    tier: str
    case: str
    recipe: DeclaredRecipe
    hardware: HardwareName
    emulated: bool
    """Whether any of it was imitated: true for all modes but physical."""
    machine: MachineProfile
    limit_bytes: int | None
    """What a card might hold in this run; None: nothing was imposed and the card's own size was not read."""
    outcome: Outcome
    out_of_memory: OutOfMemoryDetails | None = None
    """With outcome oom."""
    failure: Failure | None = None
    """With every outcome but pass and oom."""
    expected_phases: dict[str, tuple[Phase, ...]]
    """Phases of which each rank must have a reading if the run passes, by the rank's number: a missing rank shows."""
    memory: tuple[PhaseMemory, ...]
    timelines: tuple[MemoryTimeline, ...] = ()
    """To be drawn; not every run has them."""
    timing: Timing = Timing()
    knobs: dict[str, Any] = field(default_factory=dict)
    """Proof that settings acted: transformer_forwards, dtypes, shard_bytes, kv_cache_place, …"""
    quality: dict[str, float] = field(default_factory=dict)
    """Quality metrics; names carry the unit."""
    quality_missing: dict[str, str] = field(default_factory=dict)
    """Quality metrics that have no number in this run, and why."""
    commit: str | None = None
    """Of the working tree; ends in `+` where that had changes."""
    date: date
    run: str = "local"
    """Who ran it: local, or the name of the CI run."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise BadData(f"record of schema {self.schema}, this is {SCHEMA}", "run the case again")
        if (self.outcome == "oom") != (self.out_of_memory is not None):
            raise BadData(f"outcome {self.outcome} and out_of_memory {self.out_of_memory} disagree", "run again")
        if (self.outcome in ("pass", "oom")) != (self.failure is None):
            raise BadData(f"outcome {self.outcome} and failure {self.failure} disagree", "run the case again")

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks that have a reading."""
        return tuple(sorted({reading.rank for reading in self.memory}))

    def peak_bytes(self, rank: int | None = None, phase: str | None = None) -> int | None:
        """Most bytes allocated on `rank` (any, if None) in `phase` (any); None: no reading."""
        found = [each for each in self.memory if rank in (None, each.rank) and phase in (None, each.phase)]
        sizes = [each.allocated_bytes for each in found if each.allocated_bytes is not None]
        return max(sizes, default=None)

    def to_json(self) -> str:
        """The document: keys in the order of the fields, numbers that are not finite as text."""
        return json.dumps(_plain(self), indent=1, ensure_ascii=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "run record") -> RunRecord:
        """The record of a document.

        Raises:
            BadData: not JSON, another schema, unknown or absent keys, wrong types.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadData(f"{where}: {error}", "run the case again") from error
        return strict.build(cls, data, where)

    def write(self, report_dir: Path) -> Path:
        """Write it, whole or not at all, as `report_dir`/records/TIER.CASE.MODE.json; return the path."""
        name = run_name(self.tier, self.case, self.hardware)
        path, text = report_dir / "records" / f"{name}.json", self.to_json()
        RunRecord.from_json(text, str(path))  # what could not be read back is refused where it was made
        write_atomically(path, text)
        return path


def run_name(*words: str) -> str:
    """Tier, case and hardware mode as one word, fit for a file name."""
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", lambda match: f"%{ord(match[0]):02x}", word) for word in words)


def read_record(path: Path) -> RunRecord:
    """The record in a file; raises BadData as `RunRecord.from_json` does."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: {error}", "run the case again") from error
    return RunRecord.from_json(text, str(path))


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8); after a failure or a power cut it is the old file or the new, whole.

    Raises:
        BadData: the folder cannot be written, or `path` is a device, a folder or a socket.
    """
    temporary = None
    what = not_a_file(path)
    if what is not None:
        raise BadData(f"{path} is {what}, not a file", "choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except (OSError, UnicodeEncodeError) as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise BadData(f"{path} cannot be written: {error}", "choose a folder that can be written") from error


def _check_missing(reading: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(reading, name)
        if value is None and not reading.missing.get(name):
            raise BadData(f"{type(reading).__name__}.{name} is null without a reason", f"say why in missing[{name!r}]")
        if isinstance(value, int) and value < 0:
            raise BadData(f"{type(reading).__name__}.{name} is {value}", "give bytes, or None with a reason")


def _plain(value: Any) -> Any:
    """`value` as JSON types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value.isoformat() if isinstance(value, date) else value
