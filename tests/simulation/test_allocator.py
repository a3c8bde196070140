"""The model of the caching allocator, against sequences worked out by hand and against what must always hold."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_core.simulation.allocator import CachingAllocator, segment_size

MIB = 2**20


def replay(*events, capacity=None):
    """Sizes are births, numbered from 1; negative numbers the deaths of those."""
    allocator, births = CachingAllocator(capacity), 0
    for event in events:
        if event > 0:
            births += 1
            allocator.allocate(births, event, "load")
        else:
            allocator.free(-event)
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
    assert (allocator.reserved, allocator.result.retries, allocator.result.shortfall) == (100 * MIB, 1, 0)
    split = replay(40 * MIB, -1, 10 * MIB, 60 * MIB, capacity=80 * MIB)
    assert (split.reserved, split.result.shortfall) == (100 * MIB, 20 * MIB)


def test_peaks_by_phase():
    allocator = replay(40 * MIB, -1)
    allocator.allocate(2, 30 * MIB, "encode")
    assert allocator.result.peaks == {"load": 40 * MIB, "encode": 40 * MIB}


@given(st.lists(st.tuples(st.integers(1, 64 * MIB), st.booleans(), st.integers(0, 50)), max_size=60))
@settings(max_examples=100)
def test_blocks_never_overlap_and_cover_what_is_reserved(steps):
    allocator, alive = CachingAllocator(), []
    for serial, (size, dies, which) in enumerate(steps, 1):
        allocator.allocate(serial, size, "load")
        alive.append(serial)
        if dies:
            allocator.free(alive.pop(which % len(alive)))
        blocks = sorted(allocator.blocks(), key=lambda block: block.address)
        assert all(one.address + one.size <= two.address for one, two in pairwise(blocks))
        assert sum(block.size for block in blocks) == allocator.reserved
        assert sum(block.size for block in blocks if block.used) == allocator.allocated
        assert allocator.reserved >= allocator.allocated
    for serial in alive:
        allocator.free(serial)
    assert all(block.before is None and block.after is None for block in allocator.blocks()), "all joined again"
