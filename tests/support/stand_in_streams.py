"""Streams of a card without a card, which find every use of memory that nothing puts behind the use before it.

Each stream counts what it does, and knows how far every other has come by the events that it waited for: what it does
not know to be done may still be under way. Work is done at once, so that values are right where order is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Clock = dict[int, int]
"""How far a stream knows each one to have come, by number."""


class Event:
    """A place in a stream."""

    def __init__(self, clock: Clock) -> None:
        self.clock = dict(clock)


class Stream:
    """One queue of a card."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.clock: Clock = {number: 0}

    def record_event(self) -> Event:
        return Event(self.clock)

    def wait_event(self, event: Event | None) -> None:
        for number, at in (event.clock if event else {}).items():
            self.clock[number] = max(self.clock.get(number, 0), at)

    def step(self) -> tuple[int, int]:
        """Do something; where in which stream that was."""
        self.clock[self.number] += 1
        return self.number, self.clock[self.number]

    def knows(self, use: tuple[int, int]) -> bool:
        number, at = use
        return self.clock.get(number, 0) >= at


class StandInStreams(TorchFunctionMode):
    """What torch.get_device_module gives for a card; while it is entered, `copy_` is a write of the current stream."""

    def __init__(self) -> None:
        super().__init__()
        self._streams = [Stream(0)]
        self._current = self._streams[0]
        self._writes: dict[int, tuple[int, int]] = {}
        self._reads: dict[int, list[tuple[int, int]]] = {}
        self.races: list[str] = []
        """Uses that may overlap."""
        self.copies: list[int] = []
        """The stream of each copy."""
        self.copied_from: list[int] = []
        """The memory that each copy read."""

    def Stream(self, device: torch.device) -> Stream:  # noqa: N802
        self._streams.append(Stream(len(self._streams)))
        return self._streams[-1]

    def current_stream(self, device: torch.device) -> Stream:
        return self._current

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self._current = self._current, stream
        try:
            yield
        finally:
            self._current = before

    def read(self, tensor: Tensor) -> None:
        """The current stream works with what stands in `tensor`."""
        place, use = tensor.data_ptr(), self._current.step()
        if place in self._writes and not self._current.knows(self._writes[place]):
            self.races.append("read before it arrived")
        self._reads.setdefault(place, []).append(use)

    def _write(self, tensor: Tensor) -> None:
        place, use = tensor.data_ptr(), self._current.step()
        before = [*self._reads.pop(place, []), *([self._writes[place]] if place in self._writes else [])]
        if not all(map(self._current.knows, before)):
            self.races.append("overwritten before it was used")
        self._writes[place] = use

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.copy_ and kwargs and kwargs.get("non_blocking"):
            self._write(args[0])
            self.copies.append(self._current.number)
            self.copied_from.append(args[1].data_ptr())
        return func(*args, **(kwargs or {}))
