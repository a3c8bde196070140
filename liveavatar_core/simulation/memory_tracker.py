"""The memory tracker: follows every tensor storage from allocation to free and refuses what a card could not hold.

It sits above real CPU tensors (miniature) and fake ones (simulated) alike, sees each aten operation and each storage
resize (FSDP frees that way), rounds as CUDA's caching allocator does, and knows from `scopes` what a byte is for.
One device may play card and host: `scopes.place` tells which memory a tensor stands in.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from liveavatar_core import scopes, torch_private
from liveavatar_core.parallel import hooks
from liveavatar_core.simulation.alloc_events import Allocation, EventListener
from liveavatar_core.simulation.allocator import CachingAllocator
from liveavatar_core.simulation.cost.operation_counter import WorkCounter
from liveavatar_core.simulation.counting_hooks import COUNTING
from liveavatar_core.simulation.fake_tensors import WHERE, OperationObserver, active_fake_mode, is_meta
from liveavatar_core.simulation.memory_account import UNLIMITED, Capacity, MemoryAccount
from liveavatar_core.torch_names import SIMULATION_NAMES, check_names
from liveavatar_core.torch_private import FakeTensor, TorchDispatchMode, storage_key

check_names(SIMULATION_NAMES)


class MemoryTracker(MemoryAccount):
    """Keeps the accounts of one rank by watching torch while it is entered. Raises OutOfMemory at the capacity."""

    def __init__(
        self,
        *,
        rank: int = 0,
        capacity: Capacity = UNLIMITED,
        allocator: CachingAllocator | None = None,
        work: WorkCounter | None = None,
        listener: EventListener | None = None,
        card: torch.device | None = None,
    ) -> None:
        """Keep accounts as MemoryAccount does; `work` counts FLOPs and traffic of the same operations.

        card: what tensors on the card say, and all others stand in host memory. None: one device plays both.
        """
        super().__init__(rank=rank, capacity=capacity, allocator=allocator, listener=listener)
        self.work, self._card = work, card
        self._living: dict[int, tuple[Allocation, weakref.ref]] = {}
        self._streams = {torch.cpu.current_stream(): 0}
        self._worked_with: set[int] = set()
        """Numbers of allocations that streams other than their own were said to work with."""
        self._pauses = 0

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
            self._enter(storage, storage.nbytes(), self._said_by(tensor))

    def place_of(self, tensor: torch.Tensor) -> str:
        """Where a tensor stands: card or host."""
        entry = self._living.get(storage_key(tensor.untyped_storage()))
        return entry[0].place if entry else self._said_by(tensor) or scopes.current().place

    def _said_by(self, tensor: torch.Tensor) -> str | None:
        """Where a tensor says that it stands; None: its device plays both memories."""
        if self._card is None:
            return None
        return "card" if tensor.device == self._card else "host"

    def _enter(self, storage: torch.UntypedStorage, nbytes: int, place: str | None) -> None:
        stream = torch.cpu.current_stream()  # code for cards selects one here too; it has no effect but this
        self._live(storage, self.allocate(nbytes, self._streams.setdefault(stream, len(self._streams)), place))

    def _live(self, storage: torch.UntypedStorage, allocation: Allocation) -> None:
        key = storage_key(storage)
        self._living[key] = (allocation, weakref.ref(storage, partial(self._leave, key)))

    def _leave(self, key: int, _: weakref.ref | None = None) -> None:
        entry = self._living.pop(key, None)
        if entry is not None:
            number = entry[0].number
            self.free(entry[0], lingers=number in self._worked_with)
            self._worked_with.discard(number)

    def _recorded(self, tensor: torch.Tensor, _: torch.Stream) -> None:
        """`record_stream` was called."""
        number = self.number_of(tensor)
        if number is not None:
            self._worked_with.add(number)

    def _resized(self, storage: torch.UntypedStorage, nbytes: int) -> None:
        entry = self._living.get(storage_key(storage)) if self._card is not None else None
        self._leave(storage_key(storage))
        self._enter(storage, nbytes, entry[0].place if entry else None)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count no allocations inside, and speak of no frees."""
        self._pauses += 1
        try:
            with self.silent():
                yield
        finally:
            self._pauses -= 1

    def number_of(self, tensor: torch.Tensor | None) -> int | None:
        """The number of the tensor's allocation; None if it stands in no book."""
        entry = None if tensor is None else self._living.get(storage_key(tensor.untyped_storage()))
        return None if entry is None else entry[0].number

    def living(self, numbers: Container[int]) -> dict[int, int]:
        """Number of each living allocation among `numbers`, by the key of its storage."""
        return {key: entry[0].number for key, entry in self._living.items() if entry[0].number in numbers}

    def adopt(self, tensor: torch.Tensor, allocation: Allocation) -> None:
        """Enter a storage that is as good as allocated already: it changes the totals, no peak."""
        self._live(tensor.untyped_storage(), allocation)
        self.carry(allocation)

    def __enter__(self) -> MemoryTracker:
        with ExitStack() as stack:
            stack.enter_context(_no_garbage_collection())
            stack.enter_context(torch_private.resizes_told(self._resized))
            stack.enter_context(torch_private.stream_uses_told(self._recorded))
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

    def __init__(self, observe: OperationObserver) -> None:
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
        self._tracker = tracker

    def __enter__(self) -> None:
        self._tracker._pauses += 1

    def __exit__(self, *exc: object) -> None:
        self._tracker._pauses -= 1
