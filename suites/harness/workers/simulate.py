"""What a rank's process does in the simulated mode: execute one role at full size on fake tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from liveavatar_core.hardware.cards import Card, find_card
from liveavatar_core.parallel.system import System
from liveavatar_core.recipes import single
from liveavatar_core.simulation.allocator_verdict import AllocatorVerdict
from liveavatar_core.simulation.cost.roofline import estimate_time
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank, with_expandable_segments
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.simulation.memory_timeline import TimelineBuilder
from liveavatar_core.simulation.replay.repeater import Listener
from liveavatar_core.workload import Workload
from suites.harness.messages import RankReport, SimulationReport, SimulationRequest
from suites.harness.probes.observed_settings import SettingsObserver
from suites.harness.probes.phase_peaks import phase_memory
from suites.harness.probes.timelines import memory_timeline
from suites.harness.processes.link import Link

CLIP_PHASES = ("denoise", "decode")
"""What a clip's predicted seconds cover; load, encode and prefill happen once a run."""


def simulate(link: Link) -> None:
    """Command `simulate`, with a SimulationRequest; answered with a SimulationReport."""
    for command in link.commands():
        request = command.argument_as(SimulationRequest)
        link.reply(simulate_role(request, request.ranks[link.rank]))


def simulate_role(request: SimulationRequest, rank: int) -> SimulationReport:
    """Execute one rank under the usable memory of the card, as its caching allocator would lay it."""
    card = find_card(request.card)
    observers: list[SettingsObserver] = []
    capacity, trace = Capacity(card=card.usable_bytes_in(request.recipe.deployment)), TimelineBuilder()
    show = partial(show_frames, observers)
    result = simulate_rank(request.recipe, rank, capacity, observe=partial(observe, observers), trace=trace, show=show)
    report = RankReport(
        memory=phase_memory(rank, result.peaks, result.reserved_peaks),
        timeline=memory_timeline(rank, trace.points),
        observed=observers[0].report(rank) if observers else None,
        allocator=result.allocator,
        torch=torch.__version__,
    )
    return SimulationReport(
        report=report,
        shortage=result.out_of_memory.shortage if result.out_of_memory else None,
        expandable=_expandable(request, result, capacity),
        clips=result.clips,
        time=estimate_time(result.last_clip_work, card, CLIP_PHASES),
        first_clip_time=estimate_time(result.first_clip_work, card, CLIP_PHASES),
        seconds_by_part=_seconds_by_part(result, card) if result.clips else {},
        units_executed=result.units_executed,
        units_repeated=result.units_repeated,
    )


def _seconds_by_part(result: SimulatedRank, card: Card) -> dict[str, float]:
    """Phases without the collectives in them, which are a part of their own: those of one more clip."""
    work = dict.fromkeys(("encode", "prefill"), result.work) | dict.fromkeys(CLIP_PHASES, result.last_clip_work)
    found = {phase: estimate_time(operations, card, (phase,)) for phase, operations in work.items()}
    parts = {phase: each.seconds - each.communication_seconds for phase, each in found.items()}
    exchanged = sum(found[phase].communication_seconds for phase in CLIP_PHASES)
    return {part: seconds for part, seconds in (parts | {"communication": exchanged}).items() if seconds}


def _expandable(request: SimulationRequest, result: SimulatedRank, capacity: Capacity) -> AllocatorVerdict | None:
    """Whether expandable segments would make it fit."""
    return with_expandable_segments(request.recipe, result, capacity) if result.out_of_memory else None


def observe(observers: list[SettingsObserver], system: System, place_of: Callable[[Tensor], str]) -> Listener:
    """Have an observer hear of every call; repeated ones run no hook."""
    observers.append(SettingsObserver(system, place_of, hooked=False))
    return observers[0].see


def show_frames(observers: list[SettingsObserver], frames_JHWC: Tensor) -> None:
    """Have the observer see what was decoded; there is one by then."""
    observers[0].see_frames(frames_JHWC)


def warm_up() -> None:
    """Simulate once, so that processes that are forked later find shapes and effects of operations known.

    With the portrait that tiers take unless they name one: their shapes are the same.
    """
    recipe = single(1)
    recipe = replace(recipe, workload=Workload.largest(recipe.clip.max_area))
    simulate_role(SimulationRequest(recipe=recipe, card="A100 80GB SXM", ranks=(0,)), 0)
