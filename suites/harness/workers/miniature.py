"""What a rank's process does in the miniature mode: really run a small model on the CPU, counted by a tracker."""

from __future__ import annotations

from typing import cast

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
from liveavatar_core.weights.load_work import LoadWork
from liveavatar_core.weights.shipped import shipped_weights
from suites.harness.messages import ClipJob, RankReport
from suites.harness.probes.observed_settings import SettingsObserver
from suites.harness.probes.phase_clock import PhaseClock
from suites.harness.probes.phase_peaks import phase_memory
from suites.harness.probes.timelines import memory_timeline
from suites.harness.processes.link import Link
from suites.harness.records.measurements import Phase
from suites.harness.workers.clips import join_group, make_video, read_inputs


def run(link: Link) -> None:
    """The commands of a ClipJob: `load`, then `clip` for each clip, then `finish`."""
    job = link.job(ClipJob)
    probe = TrackerProbe(link, job.capacity_bytes)
    timeout = join_group(link, job)
    inputs = read_inputs(job.recipe)
    link.next_command()
    try:
        world = join_world(job.recipe.deployment, Memory(card=torch.device("cpu")), timeout)
        weights = small_weights(job.recipe)
        with probe.tracker, PhaseClock() as clock:
            avatar = load_avatar(job.recipe, world, weights)
            probe.load = avatar.system.load
            probe.observer = SettingsObserver(avatar.system, probe.tracker.place_of)
            make_video(link, job, avatar, inputs, probe.observer, probe.report, clock)
    finally:
        link.report(probe.report())
    if link.world_size > 1:
        dist.destroy_process_group()


class TrackerProbe:
    """A memory tracker and what it has seen; tells at each change of phase, so that a rank that fails leaves it."""

    def __init__(self, link: Link, capacity_bytes: int | None) -> None:
        """`capacity_bytes`: what the rank may hold; None: as much as it likes."""
        self._rank, self._timeline = link.rank, TimelineBuilder()
        self.tracker = MemoryTracker(rank=link.rank, capacity=Capacity(card=capacity_bytes), listener=self._timeline)
        self.tracker.on_phase = lambda phase: link.report(self.report(phase))
        self.observer: SettingsObserver | None = None
        """Once there is a system to look at."""
        self.load: LoadWork | None = None
        """Once weights are in place."""

    def report(self, phase: str | None = None) -> RankReport:
        """Everything known so far, in `phase`; by default in the last one that the tracker saw."""
        return RankReport(
            phase=cast(Phase, phase or next(reversed(self.tracker.peaks), "load")),
            memory=phase_memory(self._rank, self.tracker.peaks),
            timeline=memory_timeline(self._rank, self._timeline.points),
            load=self.load,
            observed=self.observer.report(self._rank) if self.observer else None,
            torch=torch.__version__,
            cpu_kernels=install_cpu_kernels(),
        )


def small_weights(recipe: Recipe) -> Weights:
    """The tiny avatar's where the model is of its size, else values of chance. Raises CheckpointError."""
    return shipped_weights(recipe) if recipe.model == TINY else seeded_weights(recipe)
