"""What a rank's process does on a real card: the same clips, read by torch's allocator and by NVML."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import pynvml
import torch
import torch.distributed as dist

from liveavatar_core import scopes, torch_private
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.parallel.devices import Memory, prepare_card
from liveavatar_core.parallel.out_of_memory import read_card, typed_out_of_memory
from liveavatar_core.parallel.world import join_world
from liveavatar_core.pipeline import load_avatar
from liveavatar_core.simulation.allocator_verdict import AllocatorVerdict
from liveavatar_core.weights.given import open_given
from liveavatar_core.weights.load_work import LoadWork
from suites.harness.messages import ClipJob, RankReport
from suites.harness.probes.device import DeviceSampler, HostMemory
from suites.harness.probes.observed_settings import SettingsObserver, device_place
from suites.harness.probes.phase_clock import PhaseClock
from suites.harness.probes.phase_timeline import PhaseTimeline
from suites.harness.processes.link import Link
from suites.harness.records.measurements import CardConditions, Phase, PhaseMemory
from suites.harness.workers.clips import join_group, make_video, read_inputs

NO_CATEGORIES = "an allocator does not know what bytes are for"


def run(link: Link) -> None:
    """The commands of a ClipJob, as in the miniature mode. The rank sees one card."""
    job = link.job(ClipJob)
    card = torch.device("cuda", 0)
    prepare_card(card, job.recipe.deployment)
    capacity = _cap(job.capacity_bytes)
    timeout = join_group(link, job)
    inputs = read_inputs(job.recipe)
    link.next_command()
    typed = typed_out_of_memory(link.rank, partial(read_card, capacity), partial(_save_snapshot, link, job))
    with CardProbe(link, job) as probe, typed, PhaseClock(CardStopwatch(), torch_private.compile_seconds) as clock:
        world = join_world(job.recipe.deployment, Memory(card=card), timeout)
        weights, tokenizer = open_given(job.recipe)
        avatar = load_avatar(job.recipe, world, weights, tokenizer)
        probe.load = avatar.system.load
        probe.observer = SettingsObserver(avatar.system, device_place)
        make_video(link, job, avatar, inputs, probe.observer, probe.report, clock)
    if link.world_size > 1:
        dist.destroy_process_group()


class CardStopwatch:
    """Where a card computes behind the host's back: events of the stream that computes."""

    def mark(self) -> torch.cuda.Event:
        """This place in the stream's work."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, earlier: torch.cuda.Event, later: torch.cuda.Event) -> float:
        """Between the moments at which the stream came by."""
        return earlier.elapsed_time(later) / 1000

    def wait(self) -> None:
        """Return when the card has nothing more to do."""
        torch.cuda.synchronize()


def _cap(capacity: int | None) -> int:
    """Give the allocator no more than `capacity`; returns what it may have."""
    total = torch.cuda.get_device_properties(0).total_memory
    if capacity is None or capacity >= total:
        return total
    torch.cuda.set_per_process_memory_fraction(capacity / total, 0)
    return capacity


class CardProbe:
    """Peaks of each phase while it is entered; tells the parent at every change, so that failures leave readings."""

    def __init__(self, link: Link, job: ClipJob) -> None:
        self._link, self._phase = link, "load"
        self._alone = job.alone_on_card
        self.observer: SettingsObserver | None = None
        """Once there is a system to look at."""
        self.load: LoadWork | None = None
        """Once weights are in place."""
        self._failure: OutOfMemory | None = None
        self._peaks: dict[str, tuple[int, int]] = {}
        self._visits = PhaseTimeline()
        self._host = HostMemory()
        self._device = DeviceSampler(pynvml, job.card_uuids[link.rank])
        self._told = scopes.phases_told(self._change)

    def __enter__(self) -> Self:
        self._device.__enter__()
        self._told.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._told.__exit__(kind, error, trace)
        self._take()
        self._device.__exit__(kind, error, trace)
        self._failure = error if isinstance(error, OutOfMemory) else None
        self._link.report(self.report(scopes.scope_of(error).phase if error else None))

    def report(self, phase: str | None = None) -> RankReport:
        """Readings so far. `phase`: which one it is in; the last that was told of, by default."""
        self._take()
        return RankReport(
            phase=cast(Phase, phase or self._phase),
            memory=tuple(self._reading(name, *peak) for name, peak in self._peaks.items()),
            timeline=self._visits.timeline(self._link.rank, self._phase, *_most()),
            allocator=AllocatorVerdict.of(
                {name: reserved for name, (_, reserved) in self._peaks.items()},
                torch.cuda.memory_stats().get("num_alloc_retries", 0),
                self._failure,
            ),
            load=self.load,
            observed=self.observer.report(self._link.rank) if self.observer else None,
            torch=torch.__version__,
            cuda=torch.version.cuda,
            card_conditions=CardConditions(
                slowed_by=tuple(sorted(self._device.slowed_by)), most_watts=self._device.most_watts or None
            ),
        )

    def _change(self, phase: str) -> None:
        self._take()
        self._visits.end(self._phase, *_most())
        torch.cuda.reset_peak_memory_stats()
        self._device.start_phase(phase)
        self._host.start_phase(phase)
        known, self._phase = phase in self._peaks, phase
        if not known:
            self._link.report(self.report())

    def _take(self) -> None:
        now = _most()
        before = self._peaks.get(self._phase, (0, 0))
        self._peaks[self._phase] = max(now[0], before[0]), max(now[1], before[1])
        self._host.read()

    def _reading(self, phase: str, allocated: int, reserved: int) -> PhaseMemory:
        used = self._device.peaks.get(phase) if self._alone else None
        missing = {"by_category": NO_CATEGORIES}
        if used is None:
            shared = "ranks share the card, and NVML tells of all of them together"
            unread = self._device.problem or "no reading in this phase"
            missing["device_used_bytes"] = unread if self._alone else shared
        return PhaseMemory(
            rank=self._link.rank,
            phase=cast(Phase, phase),
            allocated_bytes=allocated,
            reserved_bytes=reserved,
            device_used_bytes=used,
            by_category=None,
            host_bytes=self._host.peaks.get(phase),
            missing=missing,
        )


def _most() -> tuple[int, int]:
    """Bytes allocated and reserved at most since the phase began."""
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def _save_snapshot(link: Link, job: ClipJob) -> None:
    """What the allocator holds, whole or not at all beside the log; that there is no room for it ends no rank."""
    link.failing()
    path = Path(job.folder) / f"rank{link.rank}.snapshot.pickle"
    with suppress(RuntimeError, OSError):
        partial = path.with_suffix(".part")
        torch_private.dump_allocator_snapshot(str(partial))
        partial.replace(path)
