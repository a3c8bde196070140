"""The memory tracker: follows every tensor storage from birth to death and refuses what a card could not hold.

It sits above real CPU tensors (miniature) and fake ones (simulated) alike, sees each aten operation and each storage
resize (FSDP frees that way), rounds as CUDA's caching allocator does, and knows from `scopes` what a byte is for.
One device may play card and host: `scopes.place` tells which memory a tensor stands in.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from liveavatar_core import scopes, torch_private
from liveavatar_core.errors import MemoryShortage, OutOfMemory
from liveavatar_core.parallel import hooks
from liveavatar_core.simulation.alloc_events import Allocation, Event, EventListener, MemoryProgram, ReplayedCall, Rise
from liveavatar_core.simulation.cost.operation_counter import WorkCounter
from liveavatar_core.simulation.counting_hooks import COUNTING
from liveavatar_core.simulation.fake_tensors import WHERE, Observe, active_fake_mode, is_meta
from liveavatar_core.torch_private import FakeTensor, TorchDispatchMode, storage_key

torch_private.check_names(torch_private.SIMULATION_NAMES)

ALLOCATION_UNIT = 512
"""Bytes that the CUDA caching allocator rounds every request up to."""


@dataclass(kw_only=True)
class PhasePeak:
    """The fullest moment of one phase on the card."""

    allocated: int = 0
    """Bytes."""
    by_category: dict[str, int] = field(default_factory=dict)
    """Bytes of each category at that moment."""
    host_allocated: int = 0
    """Most bytes in host memory during the phase."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a rank may hold, in bytes; None is unlimited."""

    card: int | None = None
    """Usable memory of the card."""
    host: int | None = None
    """Host memory for this rank."""


class MemoryTracker:
    """Counts bytes of one rank while it is entered. Raises OutOfMemory at the card's capacity."""

    def __init__(
        self,
        *,
        rank: int = 0,
        capacity: Capacity = Capacity(),
        work: WorkCounter | None = None,
        listener: EventListener | None = None,
    ) -> None:
        """Count for `rank`; raise at `capacity`.

        `work` counts FLOPs and traffic of the same operations. `listener` hears of every allocation and free that
        takes bytes.
        """
        self.rank, self.capacity, self.work = rank, capacity, work
        self.totals = {place: dict.fromkeys(scopes.CATEGORIES, 0) for place in scopes.PLACES}
        self.allocated = dict.fromkeys(scopes.PLACES, 0)
        self.peaks: dict[str, PhasePeak] = {}
        self.on_phase: Callable[[str], None] = lambda phase: None
        """Told of each phase when its first tensor is born."""
        self._living: dict[int, tuple[Allocation, weakref.ref]] = {}
        self._allocations, self._pauses, self._silent = 0, 0, False
        self._listener = listener
        self._log: list[Event | ReplayedCall] = []
        self._recordings = 0

    def observe(self, func: Any, args: tuple, out: Any) -> None:
        """Take note of an executed operation: its overload, what it was given, what it gave."""
        if self._pauses:
            return
        if isinstance(out, torch.Tensor):
            self.see(out)
        elif isinstance(out, list | tuple):
            for item in out:
                if isinstance(item, torch.Tensor):
                    self.see(item)
        if self.work is not None:
            self.work.count(func, args, out)

    def see(self, tensor: torch.Tensor) -> None:
        """Enter the tensor's storage in the books, unless it stands there already or is on no device at all."""
        if type(tensor) is not FakeTensor and tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        if storage_key(storage) not in self._living:
            self._enter(storage, storage.nbytes())

    def place_of(self, tensor: torch.Tensor) -> str:
        """Where a tensor stands: card or host."""
        entry = self._living.get(storage_key(tensor.untyped_storage()))
        return entry[0].place if entry else scopes.current().place

    def _enter(self, storage: torch.UntypedStorage, nbytes: int) -> None:
        scope, key = scopes.current(), storage_key(storage)
        size = -(-nbytes // ALLOCATION_UNIT) * ALLOCATION_UNIT
        self._check(size, scope)
        self._allocations += 1
        allocation = Allocation(self._allocations, size, scope.place, scope.category)
        self._living[key] = (allocation, weakref.ref(storage, partial(self._leave, key)))
        self._add(allocation, scope.phase)

    def _leave(self, key: int, _: weakref.ref | None = None) -> None:
        entry = self._living.pop(key, None)
        if entry is None:
            return
        allocation = entry[0]
        self.totals[allocation.place][allocation.category] -= allocation.size
        self.allocated[allocation.place] -= allocation.size
        if allocation.size and not self._silent:
            self._tell(Event(False, allocation))

    def _resized(self, storage: torch.UntypedStorage, nbytes: int) -> None:
        self._leave(storage_key(storage))
        self._enter(storage, nbytes)

    def _check(self, size: int, scope: scopes.Scope) -> None:
        capacity = self.capacity.card if scope.place == "card" else self.capacity.host
        if capacity is None or self.allocated[scope.place] + size <= capacity:
            return
        raise OutOfMemory(
            MemoryShortage(
                rank=self.rank,
                phase=scope.phase,
                category=scope.category if scope.place == "card" else "host",
                requested=size,
                free=capacity - self.allocated[scope.place],
                capacity=capacity,
                holders={name: held for name, held in self.totals[scope.place].items() if held},
            )
        )

    def _add(self, allocation: Allocation, phase: str) -> None:
        self.totals[allocation.place][allocation.category] += allocation.size
        self.allocated[allocation.place] += allocation.size
        peak = self._peak(phase)
        if allocation.size:
            self._tell(Event(True, allocation))
        if allocation.place == "host":
            peak.host_allocated = max(peak.host_allocated, self.allocated["host"])
            return
        if self.allocated["card"] > peak.allocated:
            peak.allocated = self.allocated["card"]
            peak.by_category = dict(self.totals["card"])

    def _peak(self, phase: str) -> PhasePeak:
        peak = self.peaks.get(phase)
        if peak is None:
            peak = self.peaks[phase] = PhasePeak()
            self.on_phase(phase)
        return peak

    def _tell(self, event: Event) -> None:
        if self._recordings:
            self._log.append(event)
        if self._listener is not None:
            self._listener.on_event(event)

    @contextmanager
    def recording(self) -> Iterator[list[Event | ReplayedCall]]:
        """Events inside are added to the list given, behind what an outer recording put there."""
        self._recordings += 1
        try:
            yield self._log
        finally:
            self._recordings -= 1
            if not self._recordings:
                self._log.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count no allocations inside, and speak of no frees."""
        self._pauses, before, self._silent = self._pauses + 1, self._silent, True
        try:
            yield
        finally:
            self._pauses, self._silent = self._pauses - 1, before

    def number_of(self, tensor: torch.Tensor | None) -> int | None:
        """The number of the tensor's allocation; None if it stands in no book."""
        entry = None if tensor is None else self._living.get(storage_key(tensor.untyped_storage()))
        return None if entry is None else entry[0].number

    def living(self, numbers: Container[int]) -> dict[int, int]:
        """Number of each living allocation among `numbers`, by the key of its storage."""
        return {key: entry[0].number for key, entry in self._living.items() if entry[0].number in numbers}

    def adopt(self, tensor: torch.Tensor, allocation: Allocation) -> None:
        """Enter a storage that is as good as allocated already: it changes the totals, no peak."""
        storage = tensor.untyped_storage()
        key = storage_key(storage)
        self._living[key] = (allocation, weakref.ref(storage, partial(self._leave, key)))
        self.totals[allocation.place][allocation.category] += allocation.size
        self.allocated[allocation.place] += allocation.size

    def fits(self, program: MemoryProgram) -> bool:
        """Whether a call with that program would stay within the capacity."""
        limits = {"card": self.capacity.card, "host": self.capacity.host}
        tops = {place: self.allocated[place] + rise.allocated for place, rise in program.rises.items()}
        return all(limit is None or tops.get(place, 0) <= limit for place, limit in limits.items())

    def repeat(self, program: MemoryProgram, leftover: int | None) -> int:
        """Note the peaks of a call that is not executed, and tell of it. Returns the number of its allocation 0.

        What it leaves must be adopted by the caller. `leftover`: number of what it frees as LEFTOVER.
        """
        phase = scopes.current().phase
        for place, rise in program.rises.items():
            if rise.allocates:
                self._raise_peak(self._peak(phase), place, rise)
        call = ReplayedCall(program, self._allocations + 1, leftover if program.frees_leftover else None)
        self._allocations += program.allocations
        if self._recordings:
            self._log.append(call)
        if self._listener is not None:
            self._listener.on_repeated(call)
        return call.first

    def _raise_peak(self, peak: PhasePeak, place: str, rise: Rise) -> None:
        highest = self.allocated[place] + rise.allocated
        if place == "host":
            peak.host_allocated = max(peak.host_allocated, highest)
        elif highest > peak.allocated:
            peak.allocated = highest
            peak.by_category = dict(self.totals["card"])
            for name, change in rise.by_category:
                peak.by_category[name] += change

    def __enter__(self) -> MemoryTracker:
        with ExitStack() as stack:
            stack.enter_context(_no_garbage_collection())
            stack.enter_context(torch_private.resizes_told(self._resized))
            # DTensor works out shapes on whole fake tensors, once for each kind of operation; they take no memory.
            stack.enter_context(torch_private.shape_inference_in(_Pause(self)))
            stack.enter_context(hooks.hooked(COUNTING))
            stack.enter_context(observed_by(self))
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._entered.__exit__(*exc)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect no cycles inside: what one holds would be freed at a moment that depends on all else in the process."""
    before = gc.isenabled()
    if before:
        gc.freeze()  # what the process has loaded need not be looked through when a part has been sharded
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
            gc.unfreeze()


def observed_by(tracker: MemoryTracker) -> AbstractContextManager[Any]:
    """Show each operation to `tracker`: by the fake tensors' own mode where they are in use, else by one more mode."""
    mode = active_fake_mode()
    return _ObservedMode(tracker.observe) if mode is None else mode.observed(tracker.observe)


class _ObservedMode(TorchDispatchMode):
    """Shows operations on real tensors to an observer."""

    def __init__(self, observe: Observe) -> None:
        super().__init__()
        self._observe = observe

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is WHERE:
            return func(*args)
        if DTensor in types:
            return NotImplemented  # let it desugar into operations on the local shard, seen one by one
        out = func(*args, **(kwargs or {}))
        if not is_meta(args, kwargs):  # has no memory to count
            self._observe(func, args, out)
        return out


class _Pause:
    """A context that can be entered again and again, inside of which a tracker counts nothing."""

    def __init__(self, tracker: MemoryTracker) -> None:
        self._ledger = tracker

    def __enter__(self) -> None:
        self._ledger._pauses += 1

    def __exit__(self, *exc: object) -> None:
        self._ledger._pauses -= 1
