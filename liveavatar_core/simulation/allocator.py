"""A model of the CUDA caching allocator: replays allocations and frees, and tells what it would keep reserved.

Rules and sizes are those of c10/cuda/CUDACachingAllocator.cpp of pytorch (get_allocation_size, should_split,
get_free_block, try_merge_blocks, release_cached_blocks) in its default configuration: no expandable segments, no limit
to splitting, no garbage collection. All allocations count as one stream's; on a card the gathers of `fully_shard` have
a stream and so segments of their own, which are not shared with what computes.

What a repeated call does depends on its program and on the free blocks alone, so that is worked out once for each pair
and applied as a whole from then on.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from liveavatar_core.simulation.alloc_events import LEFTOVER, MemoryProgram, ReplayedCall

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
MOST_KNOWN_CALLS = 4096
"""Rearrangements that are remembered; more mean that free blocks never come back to where they were."""


@dataclass(eq=False)
class Block:
    """A piece of a segment."""

    address: int
    """Where it begins; segments lie one behind the other, addresses are never used again."""
    size: int
    """Bytes of the block."""
    small: bool
    """Which pool it belongs to."""
    used: bool = False
    """Whether a tensor lies in it."""
    before: Block | None = None
    """The left neighbour in the segment."""
    after: Block | None = None
    """The right neighbour in the segment."""

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


class _Piece(NamedTuple):
    """A block that a call leaves where others were."""

    address: int
    """Where it begins."""
    size: int
    """Bytes of the block."""
    number: int | None
    """The allocation of the call that lies in it; None: it is free."""


class _Rearrangement(NamedTuple):
    """What a call does to blocks."""

    removed: tuple[int, ...]
    """Addresses of the free blocks that are no longer what they were."""
    pieces: tuple[_Piece, ...]
    """What lies there, and in the block of the leftover, by address."""


class CachingAllocator:
    """Blocks by the number of the allocation that lies in them."""

    def __init__(self, capacity: int | None = None) -> None:
        """`capacity`: bytes of segments that the card has; None is unlimited."""
        self.capacity = capacity
        self.reserved = self.allocated = self._next_address = 0
        self.result = Reserved()
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._idle: dict[int, Block] = {}
        self._used: dict[int, Block] = {}
        self._state = 0
        """Fingerprint of the free blocks: the exclusive or of the hashes of their sizes and addresses."""
        self._known: dict[tuple[MemoryProgram, int, tuple[int, int] | None], _Rearrangement] = {}

    def allocate(self, number: int, nbytes: int, phase: str) -> Block:
        """Find room for an allocation."""
        size = _rounded(nbytes, SMALLEST_BLOCK)
        block = self._best_fit(size) or self._new_segment(size)
        block = self._split(block, size)
        block.used = True
        self._used[number] = block
        self.allocated += block.size
        self.result.peaks[phase] = max(self.result.peaks.get(phase, 0), self.reserved)
        return block

    def free(self, number: int) -> None:
        """Take back what an allocation leaves, joined with free neighbours."""
        block = self._used.pop(number)
        block.used = False
        self.allocated -= block.size
        for neighbour in (block.before, block.after):
            if neighbour is not None and not neighbour.used:
                self._withdraw(neighbour)
                block = _joined(block, neighbour)
        self._offer(block)

    def repeat(self, call: ReplayedCall, phase: str, place: str = "card") -> None:
        """Replay all that a call does in one memory."""
        if not call.program.touches(place):
            return
        left = self._used.get(call.leftover) if call.leftover is not None else None
        key = (call.program, self._state, None if left is None else left.key)
        known = self._known.get(key)
        if known is None:
            self._learn(key, call, phase, place)
        else:
            self._apply(known, call)
            if call.program.allocations_in(place):
                self.result.peaks[phase] = max(self.result.peaks.get(phase, 0), self.reserved)

    def blocks(self) -> Iterator[Block]:
        """Every block, used or free."""
        yield from self._used.values()
        yield from self._idle.values()

    def _learn(
        self, key: tuple[MemoryProgram, int, tuple[int, int] | None], call: ReplayedCall, phase: str, place: str
    ) -> None:
        """Replay event by event, and remember what came of it unless segments came or went."""
        before = {block.address: block.size for block in self._idle.values()}
        segments = self._next_address, self.result.retries
        for event in call.program.events:
            if isinstance(event, ReplayedCall):
                self.repeat(_placed(event, call), phase, place)
            elif event.allocation.place != place:
                continue
            elif event.allocates:
                self.allocate(call.first + event.allocation.number, event.allocation.size, phase)
            else:
                self.free(_number_in(event.allocation.number, call))
        if segments == (self._next_address, self.result.retries):
            if len(self._known) >= MOST_KNOWN_CALLS:
                self._known.clear()
            self._known[key] = self._difference(before, call, place)

    def _difference(self, before: dict[int, int], call: ReplayedCall, place: str) -> _Rearrangement:
        now = {block.address: block.size for block in self._idle.values()}
        pieces = [_Piece(address, size, None) for address, size in now.items() if before.get(address) != size]
        for number, allocation in call.program.survivors.items():
            if allocation.place == place:
                block = self._used[call.first + number]
                pieces.append(_Piece(block.address, block.size, number))
        removed = tuple(address for address, size in before.items() if now.get(address) != size)
        return _Rearrangement(removed, tuple(sorted(pieces)))

    def _apply(self, known: _Rearrangement, call: ReplayedCall) -> None:
        gone = [self._idle[address] for address in known.removed]
        for block in gone:
            self._withdraw(block)
        if call.program.frees_leftover and call.leftover in self._used:
            left = self._used.pop(call.leftover)
            self.allocated -= left.size
            gone.append(left)
        gone.sort(key=lambda block: block.address)
        pieces = iter(known.pieces)
        for first, last in _stretches(gone):
            self._lay_out(first, last, pieces, call.first)

    def _lay_out(self, first: Block, last: Block, pieces: Iterator[_Piece], number: int) -> None:
        """Put pieces where the neighbouring blocks `first` to `last` were."""
        before, end = first.before, last.address + last.size
        place = first.address
        while place < end:
            piece = next(pieces)
            block = Block(piece.address, piece.size, first.small, used=piece.number is not None, before=before)
            if before is not None:
                before.after = block
            if piece.number is None:
                self._offer(block)
            else:
                self._used[number + piece.number] = block
                self.allocated += block.size
            before, place = block, piece.address + piece.size
        assert before is not None and place == end  # noqa: PT018 - pieces fill what they replace
        before.after = last.after
        if last.after is not None:
            last.after.before = before

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
        self._state ^= hash(block.key)

    def _withdraw(self, block: Block) -> None:
        pool = self._free[block.small]
        del pool[bisect_left(pool, block.key)]
        del self._idle[block.address]
        self._state ^= hash(block.key)


def segment_size(size: int) -> int:
    """Bytes that are asked of the card for a request that no free block can take."""
    if size <= SMALL_REQUEST:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < LARGE_REQUEST else _rounded(size, SEGMENT_UNIT)


def _placed(inner: ReplayedCall, outer: ReplayedCall) -> ReplayedCall:
    """A call inside of another, with the numbers that it has in the run."""
    left = None if inner.leftover is None else _number_in(inner.leftover, outer)
    return ReplayedCall(inner.program, outer.first + inner.first, left)


def _number_in(number: int, call: ReplayedCall) -> int:
    """The number in the run of what has `number` in the call's program."""
    if number != LEFTOVER:
        return call.first + number
    assert call.leftover is not None
    return call.leftover


def _stretches(blocks: list[Block]) -> Iterator[tuple[Block, Block]]:
    """First and last of blocks that are neighbours; `blocks` by address."""
    first = last = None
    for block in blocks:
        if last is not None and last.after is block:
            last = block
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = block
    if first is not None and last is not None:
        yield first, last


def _joined(one: Block, other: Block) -> Block:
    left, right = (one, other) if one.address < other.address else (other, one)
    left.size += right.size
    left.after = right.after
    if right.after is not None:
        right.after.before = left
    return left


def _rounded(size: int, unit: int) -> int:
    return max(-(-size // unit), 1) * unit
