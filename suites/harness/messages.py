"""What ranks are told and what they tell: frozen dataclasses, so that a wrong field is named. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from liveavatar_core.config import Recipe
from liveavatar_core.errors import MemoryShortage
from liveavatar_core.simulation.allocator_verdict import AllocatorVerdict
from liveavatar_core.simulation.cost.roofline import TimeEstimate
from liveavatar_core.weights.load_work import LoadWork
from suites.harness.records.measurements import CardConditions, MemoryTimeline, ObservedSettings, Phase, PhaseMemory


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """The job of ranks that really run; their commands are `load`, `clip` for each clip, `finish`."""

    recipe: Recipe
    """The recipe to run; its workload names the files of portrait and voice."""
    folder: str
    """The folder for files about the run."""
    video: str
    """Path of the mp4 that the decode rank writes."""
    kept: str | None = None
    """A safetensors file for latents and frames that no coder has touched; None: they are not kept."""
    capacity_bytes: int | None = None
    """Bytes that a rank may hold on its card; None: the whole card."""
    backend: str = "gloo"
    """The backend between ranks: gloo, or nccl."""
    group_seconds: float = 1800.0
    """Seconds that a rank waits for others in a collective before it gives up."""
    card_uuids: tuple[str, ...] = ()
    """The card of each rank, as NVML names it; empty without cards."""
    alone_on_card: bool = True
    """Whether no other rank is on a rank's card, so that NVML's bytes are its own."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The answer to `load`: weights are in place."""

    clips: int
    """The number of clips that there will be."""
    seconds_by_part: dict[str, float]
    """Seconds of this rank from the command until then, by part: load, and exchanges with other ranks."""


@dataclass(frozen=True, kw_only=True)
class ClipTime:
    """The answer to `clip`: how long it took on this rank."""

    seconds: float
    """Seconds that this rank gave the clip: the sum of its parts."""
    seconds_by_part: dict[str, float]
    """These seconds by what they went to: a phase, an exchange with other ranks, waiting for them, ..."""
    block_seconds: tuple[float, ...]
    """Seconds from the first clip's command to the frames of each block; none where nothing is decoded."""
    block_frames: tuple[int, ...]
    """The number of frames of each of these blocks."""


@dataclass(frozen=True, kw_only=True)
class RankReport:
    """All that a rank knows of its run: told at each change of phase, and the answer to `finish`."""

    phase: Phase | None = None
    """The phase that it is in; None before it has begun."""
    memory: tuple[PhaseMemory, ...] = ()
    """Peaks of the phases so far."""
    timeline: MemoryTimeline | None = None
    """How full its card was while the run went on."""
    allocator: AllocatorVerdict | None = None
    """What its card's allocator came to; None: it has none."""
    load: LoadWork | None = None
    """What loading took; None: its weights are not in place."""
    observed: ObservedSettings | None = None
    """What it was seen to do; None: it ended before there was anything to see."""
    torch: str | None = None
    """Version of torch."""
    cuda: str | None = None
    """Version of CUDA that torch was built with; None without a card."""
    cpu_kernels: str | None = None
    """The arithmetic in which the CPU multiplies bfloat16; None where a card computes."""
    card_conditions: CardConditions = CardConditions()
    """The conditions that held its card back."""
    nan_blocks: int | None = None
    """Blocks whose latents were not finite, on the rank that decodes."""


@dataclass(frozen=True, kw_only=True)
class SimulationRequest:
    """The argument of `simulate`: a process executes one rank."""

    recipe: Recipe
    """The recipe to execute on fake tensors."""
    card: str
    """Name of the card in cards.toml."""
    ranks: tuple[int, ...]
    """The rank that each process executes."""


@dataclass(frozen=True, kw_only=True)
class SimulationReport:
    """The answer to `simulate`."""

    report: RankReport
    """Memory, timeline and settings, as of a rank that really runs."""
    shortage: MemoryShortage | None
    """Where the card was too small; None: it passed."""
    expandable: AllocatorVerdict | None
    """Where it ran out of memory to fragmentation: what expandable segments would come to, if that is better."""
    clips: int
    """Clips made."""
    time: TimeEstimate
    """Predicted seconds of denoising and decoding one more clip, the last one."""
    first_clip_time: TimeEstimate
    """The same of the first clip, whose caches are not full."""
    seconds_by_part: dict[str, float]
    """Predicted seconds of this rank under the names of measured ones: what a video does once, and its last clip."""
    units_executed: int
    """Calls of blocks, injectors, ... that were executed."""
    units_repeated: int
    """Calls whose recorded effect stands for them."""
