"""What the accounts say of allocations that no torch makes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from liveavatar_core import scopes
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.simulation.alloc_events import Allocation, Event, ReplayedCall
from liveavatar_core.simulation.allocator import CachingAllocator
from liveavatar_core.simulation.memory_account import Capacity, MemoryAccount

KIB = 1024


class Heard:
    """What a listener was told."""

    def __init__(self) -> None:
        self.events: list[Event | ReplayedCall] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_repeated(self, call: ReplayedCall) -> None:
        self.events.append(call)


def test_accounts_need_no_torch() -> None:
    script = "import sys, liveavatar_core.simulation.memory_account; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_bytes_are_counted_by_memory_category_and_phase() -> None:
    account = MemoryAccount()
    with scopes.phase("denoise"), scopes.category("kv_cache"):
        cache = account.allocate(3 * KIB + 1)
        with scopes.place("host"):
            account.allocate(KIB)
    account.free(cache)
    assert cache.size == 3 * KIB + 512
    assert account.allocated == {"card": 0, "host": KIB}
    assert account.totals["host"]["kv_cache"] == KIB
    peak = account.peaks["denoise"]
    assert (peak.allocated, peak.by_category["kv_cache"], peak.host_allocated) == (cache.size, cache.size, KIB)


def test_what_is_refused_is_not_counted() -> None:
    account = MemoryAccount(rank=2, capacity=Capacity(card=4 * KIB))
    account.allocate(3 * KIB)
    with pytest.raises(OutOfMemory) as caught:
        account.allocate(2 * KIB)
    assert (caught.value.shortage.rank, caught.value.shortage.free) == (2, KIB)
    assert account.allocated["card"] == 3 * KIB
    account.allocate(KIB)


def test_a_listener_hears_of_all_that_takes_bytes_and_of_no_free_while_silent() -> None:
    heard = Heard()
    account = MemoryAccount(listener=heard)
    account.allocate(0)
    first, second = account.allocate(1), account.allocate(1)
    account.free(first)
    with account.silent():
        account.free(second)
    assert heard.events == [Event(True, first), Event(True, second), Event(False, first)]
    assert account.allocated["card"] == 0


def test_what_is_carried_changes_the_totals_and_no_peak() -> None:
    account = MemoryAccount()
    account.carry(Allocation(7, KIB, "card", "parameters"))
    assert (account.totals["card"]["parameters"], account.peaks) == (KIB, {})


def test_fragmentation_is_told_apart_from_tensors() -> None:
    """30 of 70 MiB are free, 10 between what lies in one segment and 20 beside it: 25 fit nowhere."""
    mib = 2**20
    account = MemoryAccount(capacity=Capacity(card=70 * mib), allocator=CachingAllocator(70 * mib))
    whole = account.allocate(50 * mib)
    account.free(whole)
    account.allocate(40 * mib)
    with pytest.raises(OutOfMemory) as caught, scopes.phase("decode"), scopes.category("decoder_cache"):
        account.allocate(25 * mib)
    short = caught.value.shortage
    assert (short.requested, short.free, short.capacity, short.reserved) == (25 * mib, 30 * mib, 70 * mib, 50 * mib)
    assert (short.phase, short.category, short.shortfall) == ("decode", "decoder_cache", 5 * mib)
    assert "where --expandable_segments is enough" in caught.value.next_step
    with pytest.raises(OutOfMemory) as caught:
        account.allocate(31 * mib)
    assert (caught.value.shortage.reserved, caught.value.shortage.shortfall) == (None, mib)
    assert "--expandable_segments" not in caught.value.next_step
