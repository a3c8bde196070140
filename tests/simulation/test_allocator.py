"""The model of the caching allocator, against sequences worked out by hand and against what must always hold."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_core.simulation import allocator as allocator_module
from liveavatar_core.simulation.alloc_events import LEFTOVER, Allocation, Event, MemoryProgram, ReplayedCall
from liveavatar_core.simulation.allocator import CachingAllocator, NoRoom, segment_size
from liveavatar_core.simulation.expandable import ExpandableAllocator

MIB = 2**20
KINDS = [CachingAllocator, ExpandableAllocator]


def replay(*events, capacity=None, kind=CachingAllocator):
    """Sizes are allocations, numbered from 1, on stream 0 or with a stream behind them; negative numbers are frees."""
    allocator, allocations = kind(capacity), 0
    for event in events:
        size, stream = event if isinstance(event, tuple) else (event, 0)
        if size > 0:
            allocations += 1
            allocator.allocate(allocations, size, "load", stream)
        else:
            allocator.free(-size)
    return allocator


def test_segments_by_request():
    assert segment_size(512) == 2 * MIB
    assert segment_size(MIB) == 2 * MIB
    assert segment_size(MIB + 512) == 20 * MIB
    assert segment_size(10 * MIB - 512) == 20 * MIB
    assert segment_size(10 * MIB) == 10 * MIB
    assert segment_size(10 * MIB + 512) == 12 * MIB


def test_small_requests_share_a_segment():
    assert replay(MIB, MIB).reserved == 2 * MIB
    assert replay(MIB, MIB, 512).reserved == 4 * MIB
    assert replay(1, 1).allocated == 1024


def test_middling_requests_share_twenty_mebibytes():
    assert replay(9 * MIB, 9 * MIB).reserved == 20 * MIB
    assert replay(9 * MIB, 9 * MIB, 3 * MIB).reserved == 40 * MIB


def test_a_freed_block_is_taken_again_by_what_fits_best():
    allocator = replay(40 * MIB, 30 * MIB, -1, -2)
    assert allocator.allocate(3, 25 * MIB, "load").address == 40 * MIB
    assert allocator.reserved == 70 * MIB


def test_a_large_block_keeps_a_rest_of_a_mebibyte():
    assert replay(12 * MIB, -1, 11 * MIB).allocated == 12 * MIB
    assert replay(12 * MIB, -1, 11 * MIB - 512).allocated == 11 * MIB - 512


def test_a_small_block_is_split_to_the_last_512():
    allocator = replay(MIB, MIB - 512, 512)
    assert (allocator.reserved, allocator.allocated) == (2 * MIB, 2 * MIB)


def test_neighbours_join_again():
    thirds = (6 * MIB, 6 * MIB, 8 * MIB)
    assert replay(*thirds, -1, -2, -3, 20 * MIB).reserved == 20 * MIB
    assert replay(*thirds, -1, -3, -2, 20 * MIB).reserved == 20 * MIB
    assert replay(*thirds, -1, -3, 14 * MIB).reserved == 34 * MIB


def test_pools_do_not_mix():
    assert replay(30 * MIB, -1, 512).reserved == 32 * MIB


def test_fragments_keep_more_than_tensors_take():
    allocator = replay(50 * MIB, -1, 20 * MIB, 52 * MIB)
    assert (allocator.reserved, allocator.allocated) == (102 * MIB, 72 * MIB)


def test_whole_cached_segments_are_given_back_before_it_fails():
    allocator = replay(40 * MIB, 40 * MIB, -1, 60 * MIB, capacity=100 * MIB)
    assert (allocator.reserved, allocator.result.retries) == (100 * MIB, 1)


def test_each_time_that_segments_are_given_back_counts():
    allocator = replay(40 * MIB, -1, 50 * MIB, -2, 60 * MIB, -3, capacity=60 * MIB)
    assert (allocator.reserved, allocator.result.retries) == (60 * MIB, 2)


def test_pieces_of_a_segment_in_use_cannot_be_given_back():
    with pytest.raises(NoRoom) as caught:
        replay(40 * MIB, -1, 10 * MIB, 60 * MIB, capacity=80 * MIB)
    assert (caught.value.number, caught.value.args) == (3, (3,)), "the third allocation"


def test_what_one_stream_freed_serves_no_other():
    assert replay((40 * MIB, 0), -1, (40 * MIB, 0)).reserved == 40 * MIB
    assert replay((40 * MIB, 0), -1, (40 * MIB, 1)).reserved == 80 * MIB
    assert replay((512, 0), (512, 1)).reserved == 4 * MIB


def test_streams_share_what_is_given_back():
    allocator = replay((40 * MIB, 1), -1, (40 * MIB, 0), capacity=60 * MIB)
    assert (allocator.reserved, allocator.result.retries) == (40 * MIB, 1)


def test_what_a_stream_still_works_with_serves_nobody_until_the_next_is_freed():
    allocator = replay((40 * MIB, 1))
    allocator.free(1, lingers=True)
    assert allocator.allocated == 0
    allocator.allocate(2, 40 * MIB, "load", 1)
    assert allocator.reserved == 80 * MIB, "the first is in use still"
    allocator.free(2, lingers=True)
    allocator.allocate(3, 40 * MIB, "load", 1)
    assert allocator.reserved == 80 * MIB, "the first is done with"


def test_streams_are_waited_for_before_it_fails():
    allocator = replay((40 * MIB, 1), capacity=60 * MIB)
    allocator.free(1, lingers=True)
    allocator.allocate(2, 60 * MIB, "load")
    assert (allocator.reserved, allocator.result.retries) == (60 * MIB, 1)


def test_segments_that_grow_hold_pages():
    assert replay(512, kind=ExpandableAllocator).reserved == 2 * MIB
    assert replay(2 * MIB, kind=ExpandableAllocator).reserved == 20 * MIB
    assert replay(21 * MIB, kind=ExpandableAllocator).reserved == 40 * MIB
    assert replay(21 * MIB, 19 * MIB, 1 * MIB + 512, kind=ExpandableAllocator).reserved == 60 * MIB
    assert replay((21 * MIB, 0), (21 * MIB, 1), kind=ExpandableAllocator).reserved == 80 * MIB


def test_a_segment_that_grows_joins_new_pages_to_the_free_end():
    """50 MiB at the end are free; 70 take 20 more, where segments of their own size would take 70."""
    assert replay(10 * MIB, 50 * MIB, -2, 70 * MIB, kind=ExpandableAllocator).reserved == 80 * MIB
    assert replay(10 * MIB, 50 * MIB, -2, 70 * MIB).reserved == 130 * MIB


def test_free_pages_within_a_segment_that_grows_are_given_back():
    """60 of 80 MiB are free in pages of 20; what they held is mapped again elsewhere."""
    allocator = replay(
        20 * MIB, 20 * MIB, 20 * MIB, 20 * MIB, -1, -3, 40 * MIB, capacity=80 * MIB, kind=ExpandableAllocator
    )
    assert (allocator.reserved, allocator.result.retries) == (80 * MIB, 1)
    with pytest.raises(NoRoom):
        replay(30 * MIB, 30 * MIB, 20 * MIB, -1, 40 * MIB, capacity=80 * MIB, kind=ExpandableAllocator)


def test_peaks_by_phase():
    allocator = replay(40 * MIB, -1)
    allocator.allocate(2, 30 * MIB, "encode")
    assert allocator.result.peaks == {"load": 40 * MIB, "encode": 40 * MIB}


STEPS = st.lists(
    st.tuples(st.integers(1, 64 * MIB), st.integers(0, 1), st.booleans(), st.booleans(), st.integers(0, 50)),
    max_size=60,
)
"""Of each: what is born, on which stream, whether something dies, whether a stream works with that, which."""


@pytest.mark.parametrize("kind", KINDS)
@given(steps=STEPS, capacity=st.sampled_from([None, 400 * MIB]))
@settings(max_examples=100)
def test_blocks_never_overlap_and_cover_what_is_reserved(kind, steps, capacity):
    allocator, alive = kind(capacity), []
    for serial, (size, stream, dies, lingers, which) in enumerate(steps, 1):
        try:
            allocator.allocate(serial, size, "load", stream)
        except NoRoom:
            assert allocator.reserved + segment_size(size) > capacity
            break
        alive.append(serial)
        if dies:
            allocator.free(alive.pop(which % len(alive)), lingers=lingers)
        blocks = sorted(allocator.blocks(), key=lambda block: block.address)
        assert all(one.end <= two.address for one, two in pairwise(blocks))
        assert sum(block.size for block in blocks) == allocator.reserved <= (capacity or allocator.reserved)
        assert allocator.reserved >= allocator.allocated
    for serial in alive:
        allocator.free(serial)
    allocator._give_back()
    assert allocator.reserved == 0, "all joined again"


@pytest.mark.parametrize("kind", KINDS)
@given(steps=STEPS, times=st.integers(2, 5), capacity=st.sampled_from([None, 300 * MIB]))
@settings(max_examples=100)
def test_a_repeated_call_does_what_its_events_do(kind, steps, times, capacity):
    """The first of a call's allocations stays until the next call frees it as its leftover; all else it frees."""
    program = _program(steps)
    repeated, executed = kind(capacity), kind(capacity)
    for allocator, replaying in ((repeated, _repeat), (executed, _execute)):
        first, left = 1, None
        allocator.allocate(0, 5 * MIB, "load")
        try:
            for _ in range(times):
                replaying(allocator, ReplayedCall(program, first, left))
                first, left = first + program.allocations, first
        except NoRoom:
            pass
    _assert_alike(repeated, executed)


@pytest.mark.parametrize("kind", KINDS)
@given(steps=STEPS, small=st.booleans(), times=st.integers(2, 6), capacity=st.sampled_from([None, 300 * MIB]))
@settings(max_examples=60)
def test_calls_within_a_call_hand_on_what_they_leave(kind, steps, small, times, capacity):
    """Each frees what the one before it left, whichever call that was in; host memory has no part in it."""
    program, last = _nested(steps, 700 if small else 5 * MIB)
    repeated, executed = kind(capacity), kind(capacity)
    for allocator in (repeated, executed):
        first, left = 1, 0
        allocator.allocate(0, 5 * MIB, "load")
        try:
            for _ in range(times):
                call = ReplayedCall(program, first, left)
                if allocator is repeated:
                    allocator.repeat(call, "load")
                else:
                    _execute_card(allocator, call)
                first, left = first + program.allocations, first + last
            for size in (512, 3 * MIB, 512, 40 * MIB):
                allocator.allocate(first, size, "load")
                first += 1
            allocator.free(left, lingers=True)
        except NoRoom:
            pass
    _assert_alike(repeated, executed)


class CountsLearned(CachingAllocator):
    """Counts the calls that it replays event by event."""

    learned = 0

    def _learn(self, *arguments):
        self.learned += 1
        super()._learn(*arguments)


def test_what_a_call_does_in_the_same_state_is_worked_out_once():
    allocation = Allocation(0, 5 * MIB, "card", "activations")
    program = MemoryProgram(events=(Event(True, allocation), Event(False, allocation)))
    allocator = CountsLearned()
    for first in range(1, 6):
        allocator.repeat(ReplayedCall(program, first, None), "load")
    assert allocator.learned == 2, "the first call takes a segment, the second is remembered"
    assert allocator.result.peaks == {"load": 20 * MIB}
    allocator.repeat(ReplayedCall(program, 7, None), "encode")
    assert allocator.result.peaks == {"load": 20 * MIB, "encode": 20 * MIB}
    allocator.repeat(ReplayedCall(program, 8, None), "decode", "host")
    assert "decode" not in allocator.result.peaks


def test_a_remembered_call_that_only_frees_reaches_no_peak():
    program = MemoryProgram(events=(Event(False, Allocation(LEFTOVER, 5 * MIB, "card", "activations")),))
    allocator = CountsLearned()
    for serial in (1, 2, 3):
        allocator.allocate(serial, 5 * MIB, "load")
        allocator.repeat(ReplayedCall(program, 9, serial), "encode")
    assert allocator.learned == 1
    assert (allocator.allocated, allocator.result.peaks) == (0, {"load": 20 * MIB})


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(allocator_module, "MOST_KNOWN_CALLS", 2)
    allocator = CountsLearned()
    allocator.allocate(0, 9 * MIB, "load")
    allocator.free(0)
    for size in (1, 2, 3):
        allocation = Allocation(0, size * 2 * MIB, "card", "activations")
        program = MemoryProgram(events=(Event(True, allocation), Event(False, allocation)))
        for first in (1, 2):
            allocator.repeat(ReplayedCall(program, first, None), "load")
        assert len(allocator._known) == (size if size < 3 else 1)
    assert allocator.learned == 3


def _nested(steps, left):
    """A program whose inner calls each leave an allocation of `left` bytes; and the number of the last of those."""
    inner = _handing_on(steps, left)
    host = Allocation(0, 7 * MIB, "host", "activations")
    between = Allocation(1 + inner.allocations, 2 * MIB, "card", "activations")
    last = between.number + 1
    events = (
        Event(True, host),
        ReplayedCall(inner, 1, LEFTOVER),
        Event(True, between),
        ReplayedCall(inner, last, 1),
        Event(False, between),
        Event(False, host),
    )
    return MemoryProgram(events=events), last


def _handing_on(steps, left):
    """Frees what was left to it halfway, and leaves its allocation 0."""
    events = list(_program(steps).events)
    events[0] = Event(True, Allocation(0, left, "card", "activations"))
    leftover = Allocation(LEFTOVER, left, "card", "activations")
    events.insert(len(events) // 2 + 1, Event(False, leftover, len(steps) % 2 == 1))
    return MemoryProgram(events=tuple(events))


def _execute_card(allocator, call):
    for event in call.program.flat(call.first, call.leftover):
        if event.allocation.place == "card" and event.allocates:
            allocator.allocate(event.allocation.number, event.allocation.size, "load", event.allocation.stream)
        elif event.allocation.place == "card":
            allocator.free(event.allocation.number, lingers=event.lingers)


def _assert_alike(one, other):
    assert one.result == other.result
    assert (one.allocated, one.reserved, one._state) == (other.allocated, other.reserved, other._state)
    assert _outline(one) == _outline(other)


def _program(steps):
    events, alive = [], []
    allocations = [Allocation(0, 3 * MIB, "card", "activations", 1)]
    allocations += [
        Allocation(at, size, "card", "activations", stream) for at, (size, stream, *_) in enumerate(steps, 1)
    ]
    events.append(Event(True, allocations[0]))
    for allocation, (_, _, dies, lingers, which) in zip(allocations[1:], steps, strict=True):
        events.append(Event(True, allocation))
        alive.append(allocation)
        if dies:
            events.append(Event(False, alive.pop(which % len(alive)), lingers))
    events += [Event(False, allocation) for allocation in alive]
    return MemoryProgram(events=tuple(events))


def _repeat(allocator, call):
    if call.leftover is not None:
        allocator.free(call.leftover)
    allocator.repeat(call._replace(leftover=None), "load")


def _execute(allocator, call):
    if call.leftover is not None:
        allocator.free(call.leftover)
    for event in call.program.flat(call.first):
        if event.allocates:
            allocator.allocate(event.allocation.number, event.allocation.size, "load", event.allocation.stream)
        else:
            allocator.free(event.allocation.number, lingers=event.lingers)


def _outline(allocator):
    """Every block and its neighbours."""
    return sorted(
        (
            block.address,
            block.size,
            block.stream,
            block.small,
            block.used,
            _address(block.before),
            _address(block.after),
        )
        for block in allocator.blocks()
    )


def _address(block):
    return -1 if block is None else block.address
