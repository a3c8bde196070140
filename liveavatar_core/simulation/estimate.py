"""Execute one rank of a recipe on fake tensors at full size, and say what it would hold and how long it would take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.model.attention import choose_cuda_kernel
from liveavatar_core.parallel.load import PARTS, build_part, load_at_once, load_parts, stored_dtype
from liveavatar_core.parallel.system import System
from liveavatar_core.pipeline import Avatar, Inputs, byte_tokenizer
from liveavatar_core.simulation.alloc_events import EventListener
from liveavatar_core.simulation.allocator import CachingAllocator
from liveavatar_core.simulation.allocator_verdict import AllocatorVerdict
from liveavatar_core.simulation.cost.clip_work import ClipWork
from liveavatar_core.simulation.cost.operation_counter import WorkCounter
from liveavatar_core.simulation.cost.roofline import Operation
from liveavatar_core.simulation.expandable import ExpandableAllocator
from liveavatar_core.simulation.fake_card import CARD
from liveavatar_core.simulation.fake_world import MetaSource, fake_world
from liveavatar_core.simulation.memory_account import Capacity, PhasePeak
from liveavatar_core.simulation.memory_tracker import MemoryTracker
from liveavatar_core.simulation.replay.clips import FEWEST_CLIPS, ClipReplayer
from liveavatar_core.simulation.replay.layers import LayerReplay, shortened
from liveavatar_core.simulation.replay.recorder import CallRecorder
from liveavatar_core.simulation.replay.repeater import Listener, UnitReplayer

MOST_NOISE = 60 * AUDIO_SAMPLES_PER_SECOND
"""Samples of a simulated voice; a longer one repeats them."""
ObserverFactory = Callable[[System, Callable[[Tensor], str]], Listener]


@dataclass(frozen=True, kw_only=True)
class SimulatedRank:
    """What one rank of a recipe came to."""

    rank: int
    """The rank that was simulated."""
    peaks: dict[str, PhasePeak]
    """Fullest moment of each phase that was reached."""
    out_of_memory: OutOfMemory | None
    """Where the card was too small; None: it passed."""
    reserved_peaks: dict[str, int]
    """Most bytes that the card's allocator held in each phase."""
    allocator: AllocatorVerdict
    """Whether it fits, as the allocator lays it."""
    clips: int
    """Clips made."""
    clips_left_out: int
    """Clips among them that were like those before, and were counted instead of executed."""
    work: Counter[Operation]
    """Operations that were executed, or that repeated units would have executed."""
    first_clip_work: Counter[Operation]
    """Operations until the first clip was made; empty if none was."""
    last_clip_work: Counter[Operation]
    """Operations of the last clip alone: what one more clip takes, once caches are full; empty if none was made."""
    units_executed: int
    """Calls of blocks, injectors, ... that were executed."""
    units_repeated: int
    """Calls of such units whose recorded effect stands for them; see `repeat`."""

    @property
    def peak_bytes(self) -> int:
        """Most bytes allocated on the card, over all phases."""
        return max(peak.allocated for peak in self.peaks.values())


def simulate_rank(
    recipe: Recipe,
    rank: int,
    capacity: Capacity,
    inputs: Inputs | None = None,
    *,
    execute_everything: bool = False,
    observe: ObserverFactory | None = None,
    trace: EventListener | None = None,
    show: Callable[[Tensor], None] | None = None,
    card: torch.device = CARD,
) -> SimulatedRank:
    """Run `rank` of `recipe` under `capacity`. Takes no memory to speak of, at any model size.

    inputs: what a person would give; by default something of the size that the recipe asks for.
    execute_everything: without the shortcuts of `replay`, which give the same.
    observe: given the loaded system and where a tensor stands, says what hears of every call of a unit.
    trace: hears of every allocation and free, those of repeated calls too.
    show: is shown the frames JHWC of each block that the rank decodes.
    card: what computes. CARD: with the kernels and branches of CUDA; the CPU: with its own, as miniatures do.
    No listener hears of clips that are left out.
    """
    kind = ExpandableAllocator if recipe.deployment.expandable_segments else CachingAllocator
    allocator = kind(capacity.card if capacity.segments else None)
    steady = ClipReplayer(trace) if recipe.clip.num_clip >= FEWEST_CLIPS and not execute_everything else None
    on_card = card if card.type == "cuda" else None
    tracker = MemoryTracker(rank=rank, capacity=capacity, allocator=allocator, listener=steady or trace, card=on_card)
    tracker.work = work = WorkCounter(tracker.place_of, rank)
    repeater = UnitReplayer(tracker, work)
    clips, failure = ClipWork(work), None
    if steady is not None:
        steady.open(tracker, allocator, repeater, clips)
    built = recipe if execute_everything else shortened(recipe)
    weights = _meta_weights(built)
    load_unit = load_at_once if execute_everything else LayerReplay(recorder=CallRecorder(tracker, work), recipe=recipe)
    choose_cuda_kernel(recipe.deployment.attention)
    with fake_world(recipe.deployment, rank, card) as world:
        try:
            with tracker:
                parts = load_parts(built, world, weights, load_unit)
                system = System(recipe=recipe, world=world, parts=parts)
                avatar = Avatar(system=system, tokenizer=byte_tokenizer(recipe))
                if observe is not None:
                    repeater.listener = observe(system, tracker.place_of)
                if not execute_everything:
                    repeater.watch(parts)
                given = inputs or simulated_inputs(recipe)
                for block in avatar.generate(given, clips=steady.numbers if steady else range):
                    if show is not None and block.frames_JHWC is not None:
                        show(block.frames_JHWC)
                    if block.index == recipe.clip.blocks_per_clip - 1:
                        clips.end()
        except OutOfMemory as error:
            failure = error
    return SimulatedRank(
        rank=rank,
        peaks=tracker.peaks,
        out_of_memory=failure,
        reserved_peaks=allocator.result.peaks,
        allocator=AllocatorVerdict.of(allocator.result.peaks, allocator.result.retries, failure),
        clips=clips.made,
        clips_left_out=clips.left_out,
        work=work.operations,
        first_clip_work=clips.first,
        last_clip_work=clips.last,
        units_executed=repeater.executed,
        units_repeated=repeater.repeated,
    )


def with_expandable_segments(recipe: Recipe, found: SimulatedRank, capacity: Capacity) -> AllocatorVerdict | None:
    """What `expandable_segments` would make of a rank that was found to lose its card to pieces; None: nothing better.

    Simulates the rank once more, unless nothing was lost, or it grows its segments already.
    """
    lost = found.allocator.outcome in ("fits with retries", "fragmentation")
    if not lost or recipe.deployment.expandable_segments:
        return None
    grown = replace(recipe, deployment=replace(recipe.deployment, expandable_segments=True))
    other = simulate_rank(grown, found.rank, capacity).allocator
    return other if other.is_better_than(found.allocator) else None


def _meta_weights(recipe: Recipe) -> dict[str, MetaSource]:
    layout = Deployment(lora=recipe.deployment.lora, lora_rank=recipe.deployment.lora_rank)
    shapes = Recipe(name="", model=recipe.model, deployment=layout)
    return {name: _meta_part(name, shapes, stored_dtype(name, recipe)) for name in PARTS}


@lru_cache(maxsize=32)
def _meta_part(name: str, recipe: Recipe, dtype: torch.dtype) -> MetaSource:
    """Remembered, as building a part to look at its shapes takes as long as loading it."""
    return MetaSource.for_module(build_part(name, recipe, dtype))


def simulated_inputs(recipe: Recipe) -> Inputs:
    """A grey portrait and a voice of the workload's sizes: values do not matter here."""
    workload = recipe.workload
    samples = workload.voice_length(recipe.clip.num_clip * recipe.clip.infer_frames)
    noise = np.random.default_rng(0).normal(scale=0.1, size=min(samples, MOST_NOISE)).astype(np.float32)
    return Inputs(
        image=Image.new("RGB", (workload.portrait_width, workload.portrait_height), (128, 128, 128)),
        waveform=np.resize(noise, samples),
        prompt=workload.prompt,
    )
