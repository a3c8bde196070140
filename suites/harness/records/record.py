"""What one run measured, and where: all that reports, baselines and claims read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from liveavatar_core import strict
from liveavatar_core.config import Recipe
from liveavatar_core.errors import BadData, MemoryShortage
from liveavatar_core.files import write_atomically
from liveavatar_core.simulation.allocator_verdict import AllocatorVerdict
from liveavatar_core.simulation.voice_limit import VoiceLimit
from liveavatar_core.weights.load_work import LoadWork
from suites.harness.records.measurements import (
    CardConditions,
    MemoryTimeline,
    ObservedSettings,
    Phase,
    PhaseMemory,
    SimulatedRole,
    Timing,
)
from suites.harness.records.nccl import NcclReport

SCHEMA = 2
HARDWARE_MODES = ("physical", "partitioned", "simulated", "miniature")
"""Most real first."""

HardwareName = Literal["physical", "partitioned", "simulated", "miniature"]
Outcome = Literal["pass", "oom", "host-oom", "unsupported", "hang", "crash", "infrastructure"]


@dataclass(frozen=True, kw_only=True)
class DeclaredRecipe:
    """The declared inputs of a run, and their hash."""

    name: str
    """The recipe's name, as people call it."""
    hash: str
    """Eight hex digits over the declared inputs."""
    declared: dict[str, Any]
    """Every declared input, defaults included: clip, model, deployment, workload."""

    @classmethod
    def of(cls, recipe: Recipe) -> DeclaredRecipe:
        """The record's form of `recipe`."""
        declared = json.loads(json.dumps(asdict(recipe)))
        del declared["name"], declared["workload"]["image"], declared["workload"]["audio"]
        del declared["weights"]["ckpt_dir"], declared["weights"]["lora_path_dmd"]
        return cls(name=recipe.name, hash=recipe.hash, declared=declared)

    @property
    def weights_digest(self) -> str:
        """The digest of the files that weights came from; empty: none were given."""
        return str(self.declared.get("weights", {}).get("digest", ""))


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
    """The number of imitated cards."""
    driver: str | None = None
    """Version of the card's driver."""
    cuda: str | None = None
    """Version of CUDA that torch was built with."""
    torch: str | None = None
    """Version of torch."""
    link: str | None = None
    """The link between cards: nvlink4, pcie4, …; `shm` for processes that share a card or have none."""
    allocator: str | None = None
    """Settings of torch's caching allocator (PYTORCH_CUDA_ALLOC_CONF, cap); `tracker` for a simulated one."""
    attention_backend: str | None = None
    """The kernel that attention used."""
    compiler: str | None = None
    """The compiler of the transformer's blocks; None: they ran as they are."""
    cpu_kernels: str | None = None
    """The arithmetic of bfloat16 where no card computes: `native` or `float32, rounded` (core's cpu_kernels)."""
    host_cpu: str | None = None
    """Model of the processor."""
    host_cores: int | None = None
    """Cores that the run could use."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a run ended that neither passed nor ran out of a card's memory."""

    message: str
    """The failure in one line."""
    rank: int | None = None
    """The rank that failed first, where it is known."""
    phase: Phase | None = None
    """The phase that the rank was in, where that is known."""
    next_step: str = "read the rank's output in the report directory"
    """The command or change to try."""
    detail: str = ""
    """The end of the rank's output."""


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
    """Bytes that a card might hold in this run; None: nothing was imposed and the card's size was not read."""
    host_limit_bytes: int | None = None
    """What all ranks together might hold in host memory; None: nothing was imposed."""
    outcome: Outcome
    out_of_memory: MemoryShortage | None = None
    """The shortage of the first rank whose card was too small; with outcome oom, and only with it."""
    ranks_out_of_memory: tuple[int, ...] = ()
    """Every rank that ran out within the same moment, that first one first; empty without outcome oom."""
    failure: Failure | None = None
    """The failure; with every outcome but pass and oom."""
    expected_phases: dict[str, tuple[Phase, ...]]
    """Phases of which each rank must have a reading if the run passes, by the rank's number: a missing rank shows."""
    memory: tuple[PhaseMemory, ...]
    allocators: dict[str, AllocatorVerdict] = field(default_factory=dict)
    """What the allocator of each rank's card came to, by the rank's number; empty where there is none."""
    loads: dict[str, LoadWork] = field(default_factory=dict)
    """What loading took each rank, by the rank's number; empty in simulations, and of ranks that ended before."""
    timelines: tuple[MemoryTimeline, ...] = ()
    """To be drawn; not every run has them."""
    timing: Timing = Timing()
    observed: tuple[ObservedSettings, ...] = ()
    """The settings that ranks were seen to use; none of those that ended before there was anything to see."""
    simulated_roles: tuple[SimulatedRole, ...] = ()
    """The ranks that a simulation executed, and those that they stand for."""
    longest_voice: VoiceLimit | None = None
    """How long the voice may be, of a simulation that passed; None: it was not asked."""
    nccl: NcclReport | None = None
    """What NCCL said of itself; None where it took no part, or left nothing."""
    card_conditions: CardConditions = CardConditions()
    """The conditions that held cards back; empty where there are no cards."""
    video_format: Literal["mp4", "png"] | None = None
    """The form that the video was kept in: png where the machine has no encoder; None: there is no video."""
    quality: dict[str, float] = field(default_factory=dict)
    """Quality metrics; names carry the unit."""
    quality_missing: dict[str, str] = field(default_factory=dict)
    """Quality metrics that have no number in this run, and why."""
    commit: str | None = None
    """The commit of the working tree; ends in `+` where that had changes."""
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

    @property
    def host_bytes(self) -> int | None:
        """What all ranks together held in host memory, each at its fullest; None: a rank has no reading."""
        return host_bytes(self.memory)

    @property
    def retries(self) -> int:
        """How often the allocator of one card gave cached segments back to make room."""
        return max((each.retries for each in self.allocators.values()), default=0)

    def peak_bytes(self, rank: int | None = None, phase: str | None = None) -> int | None:
        """Most bytes allocated on `rank` (any, if None) in `phase` (any); None: no reading."""
        found = [each for each in self.memory if rank in (None, each.rank) and phase in (None, each.phase)]
        sizes = [each.allocated_bytes for each in found if each.allocated_bytes is not None]
        return max(sizes, default=None)

    def to_json(self) -> str:
        """The document: keys in the order of the fields, numbers that are not finite as text."""
        return json.dumps(strict.plain(self), indent=1, ensure_ascii=True, allow_nan=False) + "\n"

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


def host_bytes(memory: Iterable[PhaseMemory]) -> int | None:
    """The most of each rank in host memory, all ranks together; None: a rank has no reading, or there is none."""
    most: dict[int, int] = {}
    for each in memory:
        if each.host_bytes is None:
            return None
        most[each.rank] = max(most.get(each.rank, 0), each.host_bytes)
    return sum(most.values()) if most else None


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
