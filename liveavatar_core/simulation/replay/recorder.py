"""Records what a call does to memory and how much work it is, and does the same again without executing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from liveavatar_core.simulation.alloc_events import LEFTOVER, Event, MemoryProgram, ReplayedCall
from liveavatar_core.simulation.cost.operation_counter import WorkCounter
from liveavatar_core.simulation.memory_tracker import MemoryTracker
from liveavatar_core.simulation.replay.effects import Arguments, CallEffect, NotReplayable, TemplateFiller, at


class CallRecorder:
    """Executes calls of one rank and keeps what each did, so that a call that is alike can be repeated."""

    def __init__(self, tracker: MemoryTracker, work: WorkCounter) -> None:
        """`tracker` and `work` count what is executed, and what is repeated."""
        self._tracker, self._work = tracker, work

    def record(
        self, call: Callable[[], Any], arguments: Any, leftover: Callable[[], Tensor | None] = lambda: None
    ) -> tuple[Any, CallEffect | None]:
        """Execute `call`; returns its result and what it did, None if that cannot be repeated.

        arguments: all that it is given. leftover: finds what the call before left to it, and what it leaves itself.
        """
        outer, before = self._work.operations, Arguments(arguments)
        left = self._tracker.number_of(leftover())
        with self._tracker.recording() as log:
            start, self._work.operations = len(log), Counter()
            try:
                result = call()
                return result, self._effect(arguments, before, left, log[start:], result, leftover())
            finally:
                outer.update(self._work.operations)
                self._work.operations = outer

    def repeat(
        self,
        effect: CallEffect,
        arguments: Any,
        left: int | None = None,
        leave: Callable[[Tensor | None], None] = lambda _: None,
    ) -> Any:
        """Do what `effect` says to `arguments`; returns the result. Raises NoRoom, having done nothing.

        left: number of what the call before left. leave: puts what this one leaves in its place.
        """
        maker = TemplateFiller(arguments)
        first = self._tracker.repeat(effect.program, left)
        self._work.operations.update(effect.work)
        with self._tracker.paused():
            result = maker.make(effect.result)
            for path, name, template in effect.changes:
                setattr(at(arguments, path), name, maker.make(template))
            leave(maker.make(effect.leftover))
        for number, allocation in effect.program.survivors.items():
            self._tracker.adopt(maker.bases[number], allocation._replace(number=first + number))
        return result

    def run_out(self, effect: CallEffect) -> None:
        """Count what `effect` says up to where there is no room. Raises OutOfMemory."""
        self._tracker.run_out(effect.program)

    def _effect(
        self,
        arguments: Any,
        before: Arguments,
        left: int | None,
        log: list[Event | ReplayedCall],
        result: Any,
        leftover: Tensor | None,
    ) -> CallEffect | None:
        try:
            program, numbers = _program(log, left)
            living = self._tracker.living(numbers)
            made = {key: numbers[number] for key, number in living.items() if number != left}
            effect = CallEffect(
                program=program,
                work=dict(self._work.operations),
                result=before.template(result, made),
                changes=before.changes(arguments, made),
                leftover=before.template(leftover, made),
            )
            effect.check()
        except NotReplayable:
            return None
        return effect


def _program(log: list[Event | ReplayedCall], left: int | None) -> tuple[MemoryProgram, dict[int, int]]:
    """The log of a call with its allocations counted from 0, and how each allocation is numbered there."""
    numbers: dict[int, int] = {} if left is None else {left: LEFTOVER}
    events: list[Event | ReplayedCall] = []
    count = 0
    for each in log:
        if isinstance(each, ReplayedCall):
            events.append(ReplayedCall(each.program, count, _known(each.leftover, numbers)))
            numbers |= {each.first + number: count + number for number in each.program.survivors}
            count += each.program.allocations
            continue
        allocation = each.allocation
        if each.allocates:
            numbers[allocation.number], count = count, count + 1
        number = _known(allocation.number, numbers)
        events.append(each._replace(allocation=allocation._replace(number=number)))
    return MemoryProgram(events=tuple(events)), numbers


def _known(number: int | None, numbers: Mapping[int, int]) -> Any:
    if number is not None and number not in numbers:
        raise NotReplayable("something from before was freed")
    return None if number is None else numbers[number]
