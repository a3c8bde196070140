"""The memory ledger: follows every tensor storage from birth to death and refuses what a card could not hold.

It sits above real CPU tensors (miniature) and fake ones (simulated) alike, sees each aten operation and each storage
resize (FSDP frees that way), rounds as CUDA's caching allocator does, and knows from `scopes` what a byte is for.
One device may play card and host: `scopes.place` tells which memory a tensor stands in.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.utils._python_dispatch import TorchDispatchMode

from liveavatar_core import scopes
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.simulation.effects import Event, Rise
from liveavatar_core.simulation.work import WorkCounter

_WHERE = torch.ops.prim.device.default

ALLOCATION_UNIT = 512
"""Bytes that the CUDA caching allocator rounds every request up to."""


@dataclass(kw_only=True)
class Holding:
    """One living storage."""

    size: int
    """Bytes, rounded."""
    place: str
    """card or host."""
    category: str
    """What it is for."""
    serial: int
    """Order of birth; names the block in the allocation trace."""


Listener = Callable[[int, Holding], None]
"""Told of a birth by its serial, of a death by minus its serial."""


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


class Ledger(TorchDispatchMode):
    """Counts bytes of one rank while it is entered. Raises OutOfMemory at the card's capacity."""

    def __init__(
        self,
        *,
        rank: int = 0,
        capacity: Capacity = Capacity(),
        work: WorkCounter | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Count for `rank`; raise at `capacity`.

        `work` counts FLOPs and traffic of the same operations. `listener` hears of every birth (serial) and death
        (minus the serial) that takes bytes.
        """
        super().__init__()
        self.rank, self.capacity, self.work = rank, capacity, work
        self.totals = {place: dict.fromkeys(scopes.CATEGORIES, 0) for place in scopes.PLACES}
        self.allocated = dict.fromkeys(scopes.PLACES, 0)
        self.peaks: dict[str, PhasePeak] = {}
        self.on_phase: Callable[[str], None] = lambda phase: None
        """Told of each phase when its first tensor is born."""
        self._living: dict[int, tuple[Holding, weakref.ref]] = {}
        self._births, self._pauses, self._silent = 0, 0, False
        self._listener = listener
        self._log: list[tuple[int, Holding]] = []
        self._recordings = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled in here, and keeping the compiler out takes time in every operation

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is _WHERE:
            return func(*args)
        if DTensor in types:
            return NotImplemented  # let it desugar into operations on the local shard, seen one by one
        if _is_hollow(args, kwargs):
            with torch._C._DisableTorchDispatch():  # no memory to count, and fake tensors would only be slower
                return func(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        if self._pauses:
            return out
        if isinstance(out, torch.Tensor):
            self.see(out)
        elif isinstance(out, list | tuple):
            for item in out:
                if isinstance(item, torch.Tensor):
                    self.see(item)
        if self.work is not None:
            self.work.count(func, args, out)
        return out

    def see(self, tensor: torch.Tensor) -> None:
        """Enter the tensor's storage in the books, unless it stands there already or is on no device at all."""
        if tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        if storage._cdata not in self._living:
            self._enter(storage, storage.nbytes())

    def place_of(self, tensor: torch.Tensor) -> str:
        """Where a tensor stands: card or host."""
        entry = self._living.get(tensor.untyped_storage()._cdata)
        return entry[0].place if entry else scopes.current().place

    def _enter(self, storage: torch.UntypedStorage, nbytes: int) -> None:
        scope, key = scopes.current(), storage._cdata
        size = -(-nbytes // ALLOCATION_UNIT) * ALLOCATION_UNIT
        self._check(size, scope)
        self._births += 1
        holding = Holding(size=size, place=scope.place, category=scope.category, serial=self._births)
        self._living[key] = (holding, weakref.ref(storage, partial(self._leave, key)))
        self._add(holding, scope.phase)

    def _leave(self, key: int, _: weakref.ref | None = None) -> None:
        entry = self._living.pop(key, None)
        if entry is None:
            return
        holding = entry[0]
        self.totals[holding.place][holding.category] -= holding.size
        self.allocated[holding.place] -= holding.size
        if holding.size and not self._silent:
            self._tell(-holding.serial, holding)

    def _resized(self, storage: torch.UntypedStorage, nbytes: int) -> None:
        self._leave(storage._cdata)
        self._enter(storage, nbytes)

    def _check(self, size: int, scope: scopes.Scope) -> None:
        capacity = self.capacity.card if scope.place == "card" else self.capacity.host
        if capacity is None or self.allocated[scope.place] + size <= capacity:
            return
        raise OutOfMemory(
            rank=self.rank,
            phase=scope.phase,
            category=scope.category if scope.place == "card" else "host",
            requested=size,
            free=capacity - self.allocated[scope.place],
            capacity=capacity,
            holders={name: held for name, held in self.totals[scope.place].items() if held},
        )

    def _add(self, holding: Holding, phase: str) -> None:
        self.totals[holding.place][holding.category] += holding.size
        self.allocated[holding.place] += holding.size
        peak = self._peak(phase)
        if holding.size:
            self._tell(holding.serial, holding)
        if holding.place == "host":
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

    def _tell(self, signed: int, holding: Holding) -> None:
        if self._recordings:
            self._log.append((signed, holding))
        if self._listener is not None:
            self._listener(signed, holding)

    @contextmanager
    def recording(self) -> Iterator[list[tuple[int, Holding]]]:
        """Births and deaths inside are added to the list given, behind what an outer recording put there."""
        self._recordings += 1
        try:
            yield self._log
        finally:
            self._recordings -= 1
            if not self._recordings:
                self._log.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count no births inside, and speak of no deaths."""
        self._pauses, before, self._silent = self._pauses + 1, self._silent, True
        try:
            yield
        finally:
            self._pauses, self._silent = self._pauses - 1, before

    def serial_of(self, tensor: torch.Tensor | None) -> int | None:
        """The serial of the tensor's storage; None if it stands in no book."""
        entry = None if tensor is None else self._living.get(tensor.untyped_storage()._cdata)
        return None if entry is None else entry[0].serial

    def living(self, serials: Container[int]) -> dict[int, int]:
        """Serial of each living storage among `serials`, by the storage's key."""
        return {key: entry[0].serial for key, entry in self._living.items() if entry[0].serial in serials}

    def adopt(self, tensor: torch.Tensor, holding: Holding) -> None:
        """Enter a storage that is as good as born already: it changes the totals, no peak."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        self._living[key] = (holding, weakref.ref(storage, partial(self._leave, key)))
        self.totals[holding.place][holding.category] += holding.size
        self.allocated[holding.place] += holding.size

    def repeat(self, events: Sequence[Event], rises: Mapping[str, Rise], left: int | None) -> int:
        """Note the peaks of a call that is not executed, and tell of its events. Returns the serial of its birth 0.

        What lives on must be adopted by the caller. `left`: serial of what event number -1 frees.
        """
        phase = scopes.current().phase
        for place, rise in rises.items():
            if rise.born:
                self._raise_peak(self._peak(phase), place, rise)
        first = self._births + 1
        self._births += sum(event.born for event in events)
        for event in events if self._recordings or self._listener is not None else ():
            serial = left if event.number == -1 and left is not None else first + event.number
            holding = Holding(size=event.size, place=event.place, category=event.category, serial=serial)
            self._tell(serial if event.born else -serial, holding)
        return first

    def _raise_peak(self, peak: PhasePeak, place: str, rise: Rise) -> None:
        highest = self.allocated[place] + rise.allocated
        if place == "host":
            peak.host_allocated = max(peak.host_allocated, highest)
        elif highest > peak.allocated:
            peak.allocated = highest
            peak.by_category = dict(self.totals["card"])
            for name, change in rise.by_category:
                peak.by_category[name] += change

    def __enter__(self) -> Ledger:
        gc.collect()
        gc.freeze()  # what the process has loaded need not be looked through when a part has been sharded
        gc.disable()  # what a cycle holds would be freed at a moment that depends on all else in the process
        self._unpatch = _watch_resizes(self._resized)
        # DTensor works out shapes on whole fake tensors, once for each kind of operation; they take no memory.
        ShardingPropagator._fake_mode_lock = _Pause(self)  # type: ignore[assignment]
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self._unpatch()
        ShardingPropagator._fake_mode_lock = nullcontext()
        gc.enable()
        gc.unfreeze()


def _is_hollow(args: tuple, kwargs: dict | None) -> bool:
    """Whether an operation makes a plain meta tensor, or works on nothing else."""
    device = kwargs.get("device") if kwargs else None
    if device is not None and torch.device(device).type != "meta":
        return False
    tensors = [value for value in args if isinstance(value, torch.Tensor)]
    return (bool(tensors) or device is not None) and all(
        type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.is_meta for tensor in tensors
    )


class _Pause:
    """A context that can be entered again and again, inside of which a ledger counts nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __enter__(self) -> None:
        self._ledger._pauses += 1

    def __exit__(self, *exc: object) -> None:
        self._ledger._pauses -= 1


def _watch_resizes(told: Callable[[torch.UntypedStorage, int], None]) -> Callable[[], None]:
    """Hear of every storage resize until the returned function is called: they are no aten operations."""
    original = torch.UntypedStorage.resize_

    def resize_(storage: torch.UntypedStorage, size: int) -> Any:
        told(storage, size)  # first, as an allocator refuses before it gives
        return original(storage, size)

    torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign, assignment]

    def unpatch() -> None:
        torch.UntypedStorage.resize_ = original  # type: ignore[method-assign]

    return unpatch
