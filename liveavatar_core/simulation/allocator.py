"""A model of the CUDA caching allocator: replays births and deaths, and tells what it would keep reserved.

Rules and sizes are those of c10/cuda/CUDACachingAllocator.cpp of pytorch (get_allocation_size, should_split,
get_free_block, try_merge_blocks, release_cached_blocks) in its default configuration: no expandable segments, no limit
to splitting, no garbage collection. All allocations count as one stream's; on a card the gathers of `fully_shard` have
a stream and so segments of their own, which are not shared with what computes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

SMALLEST_BLOCK = 512
"""Bytes that sizes are rounded up to (kMinBlockSize)."""
SMALL_REQUEST = 2**20
"""Largest request of the small pool (kSmallSize)."""
SMALL_SEGMENT = 2 * 2**20
"""Segment of the small pool (kSmallBuffer)."""
LARGE_SEGMENT = 20 * 2**20
"""Segment for requests of 1 to 10 MiB (kLargeBuffer)."""
LARGE_REQUEST = 10 * 2**20
"""From here on a request gets a segment of its own (kMinLargeAlloc)."""
SEGMENT_UNIT = 2 * 2**20
"""What segments of such requests are rounded up to (kRoundLarge)."""


@dataclass(eq=False)
class Block:
    """A piece of a segment."""

    address: int
    """Where it begins; segments lie one behind the other, addresses are never used again."""
    size: int
    """Bytes."""
    small: bool
    """Which pool it belongs to."""
    used: bool = False
    """Whether a tensor lies in it."""
    before: Block | None = None
    """Its left neighbour in the segment."""
    after: Block | None = None
    """Its right neighbour in the segment."""

    @property
    def key(self) -> tuple[int, int]:
        """Best fit is the smallest, then the lowest."""
        return self.size, self.address


@dataclass(kw_only=True)
class Reserved:
    """What a replay came to."""

    peaks: dict[str, int] = field(default_factory=dict)
    """Most bytes reserved in each phase."""
    retries: int = 0
    """How often cached segments were given back to make room."""
    shortfall: int = 0
    """Most bytes by which segments exceeded the capacity although tensors did not: fragmentation."""


class CachingAllocator:
    """Blocks by the serial of what lies in them."""

    def __init__(self, capacity: int | None = None) -> None:
        """`capacity`: bytes of segments that the card has; None is unlimited."""
        self.capacity = capacity
        self.reserved = self.allocated = self._next_address = 0
        self.result = Reserved()
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._idle: dict[int, Block] = {}
        self._used: dict[int, Block] = {}

    def allocate(self, serial: int, nbytes: int, phase: str) -> Block:
        """Find room for a birth."""
        size = _rounded(nbytes, SMALLEST_BLOCK)
        block = self._best_fit(size) or self._new_segment(size)
        block = self._split(block, size)
        block.used = True
        self._used[serial] = block
        self.allocated += block.size
        self.result.peaks[phase] = max(self.result.peaks.get(phase, 0), self.reserved)
        return block

    def free(self, serial: int) -> None:
        """Take back what a death leaves, joined with free neighbours."""
        block = self._used.pop(serial)
        block.used = False
        self.allocated -= block.size
        for neighbour in (block.before, block.after):
            if neighbour is not None and not neighbour.used:
                self._withdraw(neighbour)
                block = _joined(block, neighbour)
        self._offer(block)

    def blocks(self) -> Iterator[Block]:
        """Every block, used or free."""
        yield from self._used.values()
        yield from self._idle.values()

    def _best_fit(self, size: int) -> Block | None:
        pool = self._free[size <= SMALL_REQUEST]
        place = bisect_left(pool, (size, 0))
        if place == len(pool):
            return None
        block = self._idle[pool[place][1]]
        self._withdraw(block)
        return block

    def _new_segment(self, size: int) -> Block:
        segment = segment_size(size)
        if self._over(segment):
            self.result.retries += 1
            self._release()
        self.reserved += segment
        if self.capacity is not None:
            self.result.shortfall = max(self.result.shortfall, self.reserved - self.capacity)
        block = Block(address=self._next_address, size=segment, small=size <= SMALL_REQUEST)
        self._next_address += segment
        return block

    def _over(self, segment: int) -> bool:
        return self.capacity is not None and self.reserved + segment > self.capacity

    def _release(self) -> None:
        """Give back every segment in which nothing lies."""
        for block in list(self._idle.values()):
            if block.before is None and block.after is None:
                self._withdraw(block)
                self.reserved -= block.size

    def _split(self, block: Block, size: int) -> Block:
        rest = block.size - size
        if rest < SMALLEST_BLOCK if block.small else rest <= SMALL_REQUEST:
            return block
        remainder = Block(block.address + size, rest, block.small, before=block, after=block.after)
        if block.after is not None:
            block.after.before = remainder
        block.after, block.size = remainder, size
        self._offer(remainder)
        return block

    def _offer(self, block: Block) -> None:
        insort(self._free[block.small], block.key)
        self._idle[block.address] = block

    def _withdraw(self, block: Block) -> None:
        pool = self._free[block.small]
        del pool[bisect_left(pool, block.key)]
        del self._idle[block.address]


def segment_size(size: int) -> int:
    """Bytes that are asked of the card for a request that no free block can take."""
    if size <= SMALL_REQUEST:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < LARGE_REQUEST else _rounded(size, SEGMENT_UNIT)


def _joined(one: Block, other: Block) -> Block:
    left, right = (one, other) if one.address < other.address else (other, one)
    left.size += right.size
    left.after = right.after
    if right.after is not None:
        right.after.before = left
    return left


def _rounded(size: int, unit: int) -> int:
    return max(-(-size // unit), 1) * unit
