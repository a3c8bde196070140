"""What a rank's process does in the miniature mode: really run a small model on the CPU, counted by a tracker."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from liveavatar_core.config import Recipe
from liveavatar_core.hardware.cpu_kernels import install_cpu_kernels
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.load import Weights, seeded_weights
from liveavatar_core.parallel.world import join_world
from liveavatar_core.pipeline import load_avatar
from liveavatar_core.recipes import TINY
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.simulation.memory_timeline import TimelineBuilder
from liveavatar_core.simulation.memory_tracker import MemoryTracker
from liveavatar_core.weights.shipped import shipped_weights
from suites.harness.probes.observed_settings import SettingsObserver, proof_of
from suites.harness.probes.phase_peaks import phase_peaks
from suites.harness.processes.child_link import ChildLink
from suites.harness.workers.clips import count_clips, make_video, read_inputs


def run(link: ChildLink) -> None:
    """Commands: `load`, then `clip` until it answers that there are no more, then `finish`.

    Payload: recipe, capacity_bytes, image, audio, prompt, video (path of the mp4).
    """
    recipe: Recipe = link.payload["recipe"]
    timeline = TimelineBuilder()
    tracker = MemoryTracker(rank=link.rank, capacity=Capacity(card=link.payload["capacity_bytes"]), listener=timeline)
    tracker.on_phase = lambda phase: _tell(link, tracker, timeline, phase)
    if link.world_size > 1:
        dist.init_process_group("gloo", init_method=link.rendezvous, rank=link.rank, world_size=link.world_size)
    inputs = read_inputs(link.payload)
    link.next_command()
    proof = None
    try:
        world = join_world(recipe.deployment, Memory(card=torch.device("cpu")))
        weights = small_weights(recipe)
        with tracker:
            avatar = load_avatar(recipe, world, weights)
            proof = SettingsObserver(avatar.system, tracker.place_of)
            link.reply({"clips": count_clips(recipe, inputs)})
            make_video(
                link,
                avatar,
                inputs,
                lambda: {
                    "memory": phase_peaks(link.rank, tracker.peaks),
                    "timeline": timeline.columns(link.rank),
                    **proof_of(proof),
                    "torch": torch.__version__,
                    "cpu_kernels": install_cpu_kernels(),
                },
            )
    finally:
        _tell(link, tracker, timeline, next(reversed(tracker.peaks), "load"), proof_of(proof))
    if link.world_size > 1:
        dist.destroy_process_group()


def small_weights(recipe: Recipe) -> Weights:
    """The tiny avatar's where the model is of its size, else values of chance. Raises CheckpointError."""
    return shipped_weights(recipe) if recipe.model == TINY else seeded_weights(recipe)


def _tell(
    link: ChildLink, tracker: MemoryTracker, timeline: TimelineBuilder, phase: str, proof: dict[str, Any] | None = None
) -> None:
    """Send what is known so far, so that a rank that fails leaves its readings behind."""
    memory = phase_peaks(link.rank, tracker.peaks)
    link.event({"phase": phase, "memory": memory, "timeline": timeline.columns(link.rank), **(proof or {})})
