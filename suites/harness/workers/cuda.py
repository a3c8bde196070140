"""What a rank's process does on a real card: the same clips, read by torch's allocator and by NVML."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pynvml
import torch
import torch.distributed as dist

from liveavatar_core import scopes, torch_private
from liveavatar_core.config import Recipe
from liveavatar_core.errors import MemoryShortage, OutOfMemory
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.load import seeded_weights
from liveavatar_core.parallel.world import join_world
from liveavatar_core.pipeline import load_avatar
from suites.harness.probes.device import DeviceSampler, HostMemory
from suites.harness.probes.observed_settings import SettingsObserver, device_place, proof_of
from suites.harness.probes.oom_message import read_message
from suites.harness.probes.phase_timeline import PhaseTimeline
from suites.harness.processes.child_link import ChildLink
from suites.harness.workers.clips import count_clips, make_video, read_inputs

NO_CATEGORIES = "an allocator does not know what bytes are for"


def run(link: ChildLink) -> None:
    """Commands as of the miniature mode. The rank sees one card.

    Payload: recipe, capacity_bytes (None: the whole card), backend, uuids (a card for each rank), alone (no other
    rank on its card), image, audio, prompt, video.
    """
    recipe: Recipe = link.payload["recipe"]
    card = torch.device("cuda", 0)
    torch.cuda.set_device(card)
    capacity = _cap(link.payload["capacity_bytes"])
    if link.world_size > 1:
        dist.init_process_group(
            link.payload["backend"], init_method=link.rendezvous, rank=link.rank, world_size=link.world_size
        )
    inputs = read_inputs(link.payload)
    link.next_command()
    with CardProbe(link) as probe, _typed_out_of_memory(link, capacity):
        avatar = load_avatar(recipe, join_world(recipe.deployment, Memory(card=card)), seeded_weights(recipe))
        probe.proof = SettingsObserver(avatar.system, device_place)
        link.reply({"clips": count_clips(recipe, inputs)})
        make_video(link, avatar, inputs, probe.report)
    if link.world_size > 1:
        dist.destroy_process_group()


def _cap(capacity: int | None) -> int:
    """Give the allocator no more than `capacity`; returns what it may have."""
    total = torch.cuda.get_device_properties(0).total_memory
    if capacity is None or capacity >= total:
        return total
    torch.cuda.set_per_process_memory_fraction(capacity / total, 0)
    return capacity


class CardProbe:
    """Peaks of each phase while it is entered; tells the parent at every change, so that failures leave readings."""

    def __init__(self, link: ChildLink) -> None:
        self._link, self._phase = link, "load"
        self.proof: SettingsObserver | None = None
        """Once there is a system to look at."""
        self._peaks: dict[str, tuple[int, int]] = {}
        self._visits = PhaseTimeline()
        self._host = HostMemory()
        self._device = DeviceSampler(pynvml, link.payload["uuids"][link.rank])
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
        self._link.event({"phase": scopes.scope_of(error).phase if error else self._phase, **self.report()})

    def report(self) -> dict[str, Any]:
        """Readings so far."""
        self._take()
        memory = [self._reading(phase, *peak) for phase, peak in self._peaks.items()]
        return {
            "memory": memory,
            "timeline": self._visits.columns(self._link.rank, self._phase, *_most()),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "slowed_by": sorted(self._device.slowed_by),
            "most_watts": self._device.most_watts,
            **proof_of(self.proof),
        }

    def _change(self, phase: str) -> None:
        self._take()
        self._visits.end(self._phase, *_most())
        torch.cuda.reset_peak_memory_stats()
        self._device.start_phase(phase)
        self._host.start_phase(phase)
        known, self._phase = phase in self._peaks, phase
        if not known:
            self._link.event({"phase": phase, **self.report()})

    def _take(self) -> None:
        now = _most()
        before = self._peaks.get(self._phase, (0, 0))
        self._peaks[self._phase] = max(now[0], before[0]), max(now[1], before[1])
        self._host.read()

    def _reading(self, phase: str, allocated: int, reserved: int) -> dict[str, Any]:
        alone = self._link.payload["alone"]
        used = self._device.peaks.get(phase) if alone else None
        missing = {"by_category": NO_CATEGORIES}
        if used is None:
            shared = "ranks share the card, and NVML tells of all of them together"
            missing["device_used_bytes"] = shared if not alone else self._device.problem or "no reading in this phase"
        return {
            "rank": self._link.rank,
            "phase": phase,
            "allocated_bytes": allocated,
            "reserved_bytes": reserved,
            "device_used_bytes": used,
            "by_category": None,
            "host_bytes": self._host.peaks.get(phase),
            "missing": missing,
        }


def _most() -> tuple[int, int]:
    """Bytes allocated and reserved at most since the phase began."""
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


@contextmanager
def _typed_out_of_memory(link: ChildLink, capacity: int) -> Iterator[None]:
    """Torch's error as the core's, with the numbers of its message; the allocator's state is saved beside the log."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        path = Path(link.payload["folder"]) / f"rank{link.rank}.snapshot.pickle"
        torch_private.dump_allocator_snapshot(str(path))
        raise _core_error(error, link.rank, capacity) from error


def _core_error(error: BaseException, rank: int, capacity: int) -> OutOfMemory:
    scope, numbers = scopes.scope_of(error), read_message(str(error))
    allocated = torch.cuda.memory_allocated()
    return OutOfMemory(
        MemoryShortage(
            rank=rank,
            phase=scope.phase,
            category=scope.category,
            requested=numbers.requested if numbers else 0,
            free=numbers.free if numbers else max(0, capacity - allocated),
            capacity=capacity,
            holders={"allocated": allocated, "cached": torch.cuda.memory_reserved() - allocated},
        )
    )
