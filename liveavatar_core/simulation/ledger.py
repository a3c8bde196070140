"""The memory ledger: follows every tensor storage from birth to death and refuses what a card could not hold.

It sits above real CPU tensors (miniature) and fake ones (simulated) alike, sees each aten operation and each storage
resize (FSDP frees that way), rounds as CUDA's caching allocator does, and knows from `scopes` what a byte is for.
One device may play card and host: `scopes.place` tells which memory a tensor stands in.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.utils._python_dispatch import TorchDispatchMode

from liveavatar_core import scopes
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.simulation.work import WorkCounter

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
        trace: bool = False,
    ) -> None:
        """Count for `rank`; raise at `capacity`.

        `work` counts FLOPs and traffic of the same operations. `trace` keeps every birth and death.
        """
        super().__init__()
        self.rank, self.capacity, self.work = rank, capacity, work
        self.totals = {place: dict.fromkeys(scopes.CATEGORIES, 0) for place in scopes.PLACES}
        self.allocated = dict.fromkeys(scopes.PLACES, 0)
        self.peaks: dict[str, PhasePeak] = {}
        self.trace: list[tuple[int, int]] | None = [] if trace else None
        self.on_phase: Callable[[str], None] = lambda phase: None
        """Told of each phase when its first tensor is born."""
        self._living: dict[int, tuple[Holding, weakref.ref]] = {}
        self._births, self._paused = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if DTensor in types:
            return NotImplemented  # let it desugar into operations on the local shard, seen one by one
        out = func(*args, **(kwargs or {}))
        if self._paused:
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
        if self.trace is not None and holding.place == "card" and holding.size:
            self.trace.append((-holding.serial, holding.size))

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
        peak = self.peaks.get(phase)
        if peak is None:
            peak = self.peaks[phase] = PhasePeak()
            self.on_phase(phase)
        if holding.place == "host":
            peak.host_allocated = max(peak.host_allocated, self.allocated["host"])
            return
        if self.trace is not None and holding.size:
            self.trace.append((holding.serial, holding.size))
        if self.allocated["card"] > peak.allocated:
            peak.allocated = self.allocated["card"]
            peak.by_category = dict(self.totals["card"])

    def __enter__(self) -> Ledger:
        gc.collect()
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


class _Pause:
    """A context that can be entered again and again, inside of which a ledger counts nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __enter__(self) -> None:
        self._ledger._paused = True

    def __exit__(self, *exc: object) -> None:
        self._ledger._paused = False


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
