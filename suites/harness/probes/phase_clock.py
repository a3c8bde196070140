"""Where the time of a rank goes: to the phases of its own work, to exchanges with other ranks, to waiting for them.

Every moment belongs to one part, so that the parts of a clip add up to its seconds.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, Self

from liveavatar_core import scopes
from liveavatar_core.parallel import hooks

OTHER, PAUSE = "other", ""
"""Parts beside the phases: what is in none of them once the model is loaded; and time that is nobody's."""


class Stopwatch(Protocol):
    """A clock of the device that computes."""

    def mark(self) -> Any:
        """This moment in the order of the work: it may lie ahead, where a card works behind the host."""

    def seconds(self, earlier: Any, later: Any) -> float:
        """Seconds between two marks that the device has passed."""

    def wait(self) -> None:
        """Return when the device has passed every mark."""


class HostStopwatch:
    """Where the host computes: its own clock."""

    def mark(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    def seconds(self, earlier: float, later: float) -> float:
        """The difference."""
        return later - earlier

    def wait(self) -> None:
        """Nothing lies ahead of the host."""


class _Begin(NamedTuple):
    part: str
    """What begins."""
    mark: Any
    """When."""
    compiled: float
    """Seconds of compiling until then."""


class PhaseClock:
    """Gives each moment of a rank to a part of its work. A context manager: it hears of phases and exchanges inside.

    What has been worked on since is given to a clip when that is known (`give`), and read when the clip is made.
    """

    def __init__(self, stopwatch: Stopwatch | None = None, compile_seconds: Callable[[], float] = lambda: 0.0) -> None:
        """`stopwatch`: of the device that computes, the host by default. `compile_seconds`: spent until now."""
        self._watch = stopwatch or HostStopwatch()
        self._compiled = compile_seconds
        self._phase, self._loaded = "load", False
        self._beside: list[str] = []
        self._pending: list[_Begin] = []
        self._given: list[tuple[int | None, list[_Begin]]] = []
        self._totals: dict[int | None, dict[str, float]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(scopes.phases_told(self._enter_phase))
            stack.enter_context(hooks.hooked(replace(hooks.current(), beside_work=self._beside_work)))
            self._entered = stack.pop_all()
        self._begin()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._entered.__exit__(*exc)

    def loaded(self) -> None:
        """The model is in place: what is in no phase is no loading from here on."""
        self._loaded = True
        self._begin()

    def pause(self) -> None:
        """From here until `resume`, time is nobody's: the rank has nothing to do."""
        self._begin(PAUSE)

    def resume(self) -> None:
        """Work goes on."""
        self._begin()

    def give(self, clip: int | None) -> None:
        """All that has been done since the last time was for `clip`; None: for the whole video."""
        self._begin()
        self._given.append((clip, self._pending))
        self._pending = self._pending[-1:]

    def wait(self) -> None:
        """Return when the device has done all that it was given."""
        self._watch.wait()

    def take(self, clip: int | None) -> dict[str, float]:
        """Seconds by part that were given to `clip`, with what is pending; waits for the device."""
        self.give(clip)
        self._watch.wait()
        for owner, begins in self._given:
            self._count(self._totals.setdefault(owner, defaultdict(float)), begins)
        self._given.clear()
        return {part: seconds for part, seconds in self._totals.pop(clip).items() if seconds}

    def _count(self, totals: dict[str, float], begins: list[_Begin]) -> None:
        for begin, end in pairwise(begins):
            if begin.part == PAUSE:
                continue
            compiling = end.compiled - begin.compiled
            totals[begin.part] += max(self._watch.seconds(begin.mark, end.mark) - compiling, 0.0)
            if compiling:
                totals["compile"] += compiling

    def _begin(self, part: str | None = None) -> None:
        self._pending.append(_Begin(self._part() if part is None else part, self._watch.mark(), self._compiled()))

    def _part(self) -> str:
        if self._beside:
            return self._beside[-1]
        return OTHER if self._loaded and self._phase == "load" else self._phase

    def _enter_phase(self, phase: str) -> None:
        self._phase = phase
        self._begin()

    @contextmanager
    def _beside_work(self, kind: hooks.Waits) -> Iterator[None]:
        self._beside.append(kind)
        self._begin()
        try:
            yield
        finally:
            self._beside.pop()
            self._begin()
