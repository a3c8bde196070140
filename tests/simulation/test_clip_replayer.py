"""Which clips a simulation leaves out: only those whose memory is known to go round."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from liveavatar_core.simulation.alloc_events import Allocation
from liveavatar_core.simulation.allocator import CachingAllocator
from liveavatar_core.simulation.cost.clip_work import ClipWork
from liveavatar_core.simulation.cost.operation_counter import WorkCounter
from liveavatar_core.simulation.expandable import ExpandableAllocator
from liveavatar_core.simulation.memory_account import MemoryAccount
from liveavatar_core.simulation.replay.clips import ClipReplayer

MIB = 2**20
Clip = Callable[[MemoryAccount, list[Allocation]], None]


def made(clip: Clip, allocator: CachingAllocator, clips: int = 20) -> list[int]:
    """Numbers of the clips that are executed; `clip` does to memory what one does, and keeps what it leaves."""
    replayer = ClipReplayer()
    kept: list[Allocation] = []
    account = MemoryAccount(allocator=allocator, listener=replayer)
    work = ClipWork(WorkCounter(lambda tensor: "card"))
    units: Any = SimpleNamespace(repeated=0)
    replayer.open(account, allocator, units, work)
    numbers = []
    for number in replayer.numbers(clips):
        clip(account, kept)
        work.end()
        numbers.append(number)
    assert work.made == clips
    assert work.left_out == clips - len(numbers)
    return numbers


def steady(account: MemoryAccount, kept: list[Allocation]) -> None:
    """Makes something that the next clip frees."""
    kept.append(account.allocate(30 * MIB))
    if len(kept) > 1:
        account.free(kept.pop(0))


def growing(account: MemoryAccount, kept: list[Allocation]) -> None:
    """Does the same each time, and memory fills."""
    kept.append(account.allocate(MIB // 2))


def scattering(account: MemoryAccount, kept: list[Allocation]) -> None:
    """Holds the same bytes after each clip, in places that move: what it keeps is freed much later."""
    kept += [account.allocate(3 * MIB), account.allocate(5 * MIB)]
    if len(kept) > 12:
        account.free(kept.pop(0))
        account.free(kept.pop(0))


@pytest.mark.parametrize("kind", [CachingAllocator, ExpandableAllocator])
def test_a_steady_clip_is_executed_a_few_times_and_at_the_end(kind: type[CachingAllocator]):
    numbers = made(steady, kind())
    assert numbers[-1] == 19
    assert len(numbers) <= 6


@pytest.mark.parametrize("kind", [CachingAllocator, ExpandableAllocator])
@pytest.mark.parametrize("clip", [growing, scattering])
def test_every_clip_is_executed_where_memory_does_not_come_back(clip: Clip, kind: type[CachingAllocator]):
    assert made(clip, kind()) == list(range(20))


def test_retries_of_clips_that_are_left_out_count():
    """Each clip needs what the one before has cached."""

    def tight(account: MemoryAccount, kept: list[Allocation]) -> None:
        for size in (60, 50):
            account.free(account.allocate(size * MIB, stream=size))

    allocator = CachingAllocator(100 * MIB)
    assert len(made(tight, allocator)) < 20
    assert allocator.result.retries == 20 * 2 - 1


def test_with_few_clips_all_are_executed():
    assert made(steady, CachingAllocator(), 3) == [0, 1, 2]
