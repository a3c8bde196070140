"""A model of the CUDA caching allocator: replays allocations and frees, and tells what it would keep reserved.

Rules and sizes are those of c10/cuda/CUDACachingAllocator.cpp of pytorch (get_allocation_size, should_split,
get_free_block, try_merge_blocks, release_cached_blocks) in its default configuration: no limit to splitting, no garbage
collection; `expandable` has the other way to get memory. Each stream has pools of its own: what was freed serves
requests of the stream that it was asked for on, and no other.

A block that another stream works with when it is freed (`record_stream`) serves nobody until that stream has passed.
Flat sharding frees its gathered weights so, and lets the host run ahead of the card by two gathers (_FreeEventQueue):
at worst, which is what is told here, the block freed last is still in use, and all freed before it are not.

What a repeated call does depends on its program and on the free blocks alone, so that is worked out once for each pair
and applied as a whole from then on.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from liveavatar_core.simulation.alloc_events import LEFTOVER, MemoryProgram, ReplayedCall
from liveavatar_core.simulation.blocks import Block, cut, joined, rounded, stretches

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
LINGERS = -2
"""In place of the number of an allocation: it is freed, and a stream still works with it."""


class NoRoom(Exception):
    """No segment can be had for a request, although all that is cached was given back."""

    def __init__(self, number: int) -> None:
        """`number`: of the allocation that was asked for."""
        super().__init__(number)
        self.number = number


@dataclass(kw_only=True)
class Reserved:
    """What a replay came to."""

    peaks: dict[str, int] = field(default_factory=dict)
    """Most bytes reserved in each phase."""
    retries: int = 0
    """How often cached segments were given back to make room."""


class _Piece(NamedTuple):
    """A block that a call leaves where others were."""

    address: int
    """Where it begins."""
    size: int
    """Bytes of the block."""
    number: int | None
    """The allocation of the call that lies in it, or LINGERS; None: it is free."""


class _Rearrangement(NamedTuple):
    """What a call does to blocks."""

    removed: tuple[int, ...]
    """Addresses of the free and the lingering blocks that are no longer what they were."""
    pieces: tuple[_Piece, ...]
    """What lies there, and in the block of the leftover, by address."""


class CachingAllocator:
    """Blocks by the number of the allocation that lies in them."""

    def __init__(self, capacity: int | None = None) -> None:
        """`capacity`: bytes of segments that the card has; None is unlimited."""
        self.capacity = capacity
        self.reserved = self.allocated = self._next_address = 0
        self.result = Reserved()
        self._free: defaultdict[tuple[int, bool], list[tuple[int, int]]] = defaultdict(list)
        """Keys of the free blocks of each stream, small and large."""
        self._idle: dict[int, Block] = {}
        self._used: dict[int, Block] = {}
        self._lingering: dict[int, Block] = {}
        """By stream: the freed block that another stream still works with."""
        self._state = 0
        """Fingerprint of the free blocks: the exclusive or of the hashes of their sizes and addresses."""
        self._known: dict[tuple[MemoryProgram, int, tuple[int, int] | None], _Rearrangement] = {}

    def allocate(self, number: int, nbytes: int, phase: str, stream: int = 0) -> Block:
        """Find room for an allocation that is asked for on `stream`. Raises NoRoom."""
        size = rounded(nbytes, SMALLEST_BLOCK)
        block = self._best_fit(size, stream) or self._new_segment(size, stream)
        if block is None:
            raise NoRoom(number)
        self._split(block, size)
        block.used = True
        self._used[number] = block
        self.allocated += block.size
        self._note_peak(phase)
        return block

    def free(self, number: int, *, lingers: bool = False) -> None:
        """Take back what an allocation leaves, joined with free neighbours; later, if a stream still works with it."""
        block = self._used.pop(number)
        self.allocated -= block.size
        done = self._linger(block) if lingers else block
        if done is not None:
            self._take_back(done)

    def repeat(self, call: ReplayedCall, phase: str, place: str = "card") -> None:
        """Replay all that a call does in one memory. Raises NoRoom."""
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
                self._note_peak(phase)

    def blocks(self) -> Iterator[Block]:
        """Every block that has memory, used or free."""
        yield from self._used.values()
        yield from self._lingering.values()
        yield from self._idle.values()

    def layout(self, since: int) -> list[tuple]:
        """All that decides where later requests go, block by block in order of addresses, which have no other meaning.

        Allocations with numbers above `since` are named by how far above: so that two clips can be compared.
        """
        owners = {block.address: number for number, block in self._used.items()}
        owners |= {block.address: LINGERS for block in self._lingering.values()}
        found = []
        for block in sorted(self._addressed(), key=lambda block: block.address):
            owner = owners.get(block.address)
            recent = owner is not None and owner > since
            name = (recent, owner - since if recent and owner is not None else owner)
            found.append((block.before is None, block.size, block.small, block.stream, block.mapped, name))
        return found

    def _addressed(self) -> Iterator[Block]:
        """Every block that has addresses."""
        return self.blocks()

    def _note_peak(self, phase: str) -> None:
        if self.reserved > self.result.peaks.get(phase, 0):
            self.result.peaks[phase] = self.reserved

    def _linger(self, block: Block) -> Block | None:
        """Keep a freed block from being used; returns the one that was kept so before it."""
        before = self._lingering.get(block.stream)
        self._lingering[block.stream] = block
        self._state ^= hash((LINGERS, block.key))
        if before is not None:
            self._state ^= hash((LINGERS, before.key))
        return before

    def _take_back(self, block: Block) -> None:
        block.used = False
        for neighbour in (block.before, block.after):
            if neighbour is not None and not neighbour.used and neighbour.mapped:
                self._withdraw(neighbour)
                block = joined(block, neighbour)
        self._offer(block)

    def _learn(
        self, key: tuple[MemoryProgram, int, tuple[int, int] | None], call: ReplayedCall, phase: str, place: str
    ) -> None:
        """Replay event by event, and remember what came of it unless segments came or went."""
        before = self._standing()
        held = self._next_address, self.reserved, self.result.retries
        for event in call.program.events:
            if isinstance(event, ReplayedCall):
                self.repeat(_placed(event, call), phase, place)
            elif event.allocation.place != place:
                continue
            elif event.allocates:
                allocation = event.allocation
                self.allocate(call.first + allocation.number, allocation.size, phase, allocation.stream)
            else:
                self.free(_number_in(event.allocation.number, call), lingers=event.lingers)
        if held == (self._next_address, self.reserved, self.result.retries):
            if len(self._known) >= MOST_KNOWN_CALLS:
                self._known.clear()
            self._known[key] = self._difference(before, call, place)

    def _standing(self) -> dict[int, tuple[int, int | None]]:
        """Size of every block without an allocation, by address, and whether it is free or LINGERS."""
        found: dict[int, tuple[int, int | None]] = {at: (block.size, None) for at, block in self._idle.items()}
        return found | {block.address: (block.size, LINGERS) for block in self._lingering.values()}

    def _difference(self, before: dict[int, tuple[int, int | None]], call: ReplayedCall, place: str) -> _Rearrangement:
        now = self._standing()
        pieces = [_Piece(address, *block) for address, block in now.items() if before.get(address) != block]
        for number, allocation in call.program.survivors.items():
            if allocation.place == place:
                block = self._used[call.first + number]
                pieces.append(_Piece(block.address, block.size, number))
        removed = tuple(address for address, block in before.items() if now.get(address) != block)
        return _Rearrangement(removed, tuple(sorted(pieces, key=lambda piece: piece.address)))

    def _apply(self, known: _Rearrangement, call: ReplayedCall) -> None:
        gone = [self._remove(address) for address in known.removed]
        if call.program.frees_leftover and call.leftover in self._used:
            left = self._used.pop(call.leftover)
            self.allocated -= left.size
            gone.append(left)
        gone.sort(key=lambda block: block.address)
        pieces = iter(known.pieces)
        for first, last in stretches(gone):
            self._lay_out(first, last, pieces, call.first)

    def _remove(self, address: int) -> Block:
        """Forget a block without an allocation."""
        block = self._idle.get(address)
        if block is not None:
            self._withdraw(block)
            return block
        block = next(block for block in self._lingering.values() if block.address == address)
        del self._lingering[block.stream]
        self._state ^= hash((LINGERS, block.key))
        return block

    def _lay_out(self, first: Block, last: Block, pieces: Iterator[_Piece], number: int) -> None:
        """Put pieces where the neighbouring blocks `first` to `last` were."""
        before, end = first.before, last.end
        place = first.address
        while place < end:
            piece = next(pieces)
            used = piece.number is not None
            block = Block(piece.address, piece.size, first.small, first.stream, used, before=before)
            if before is not None:
                before.after = block
            if piece.number is None:
                self._offer(block)
            elif piece.number == LINGERS:
                self._linger(block)
            else:
                self._used[number + piece.number] = block
                self.allocated += block.size
            before, place = block, block.end
        assert before is not None and place == end  # noqa: PT018 - pieces fill what they replace
        before.after = last.after
        if last.after is not None:
            last.after.before = before

    def _best_fit(self, size: int, stream: int) -> Block | None:
        pool = self._free[stream, size <= SMALL_REQUEST]
        place = bisect_left(pool, (size, 0))
        if place == len(pool):
            return None
        block = self._chosen(pool, place)
        self._withdraw(block)
        return block

    def _chosen(self, pool: list[tuple[int, int]], place: int) -> Block:
        """Which free block serves a request that those from `place` on of a pool can serve."""
        return self._idle[pool[place][1]]

    def _new_segment(self, size: int, stream: int) -> Block | None:
        """A free block for a request that no block can serve; None where the card has no memory left."""
        block = self._segment(size, stream)
        if block is None:
            self.result.retries += 1
            self._give_back()
            block = self._segment(size, stream)
        return block

    def _segment(self, size: int, stream: int) -> Block | None:
        """Ask the card for memory."""
        segment = segment_size(size)
        if not self._may_reserve(segment):
            return None
        self.reserved += segment
        block = Block(self._next_address, segment, size <= SMALL_REQUEST, stream)
        self._next_address += segment
        return block

    def _may_reserve(self, nbytes: int) -> bool:
        return self.capacity is None or self.reserved + nbytes <= self.capacity

    def _give_back(self) -> None:
        """Wait for every stream, then give back every segment in which nothing lies."""
        while self._lingering:
            _, block = self._lingering.popitem()
            self._state ^= hash((LINGERS, block.key))
            self._take_back(block)
        self._release()

    def _release(self) -> None:
        for block in list(self._idle.values()):
            if block.before is None and block.after is None:
                self._withdraw(block)
                self.reserved -= block.size

    def _split(self, block: Block, size: int) -> None:
        """Leave `size` bytes to a block, and offer the rest, if it is worth it."""
        if self._is_worth_it(block.size - size, block.small):
            self._offer(cut(block, size))

    def _is_worth_it(self, rest: int, small: bool) -> bool:
        return rest >= SMALLEST_BLOCK if small else rest > SMALL_REQUEST

    def _offer(self, block: Block) -> None:
        key = block.key
        insort(self._free[block.stream, block.small], key)
        self._idle[block.address] = block
        self._state ^= hash(key)

    def _withdraw(self, block: Block) -> None:
        key = block.key
        pool = self._free[block.stream, block.small]
        del pool[bisect_left(pool, key)]
        del self._idle[block.address]
        self._state ^= hash(key)


def segment_size(size: int) -> int:
    """Bytes that are asked of the card for a request that no free block can take."""
    if size <= SMALL_REQUEST:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < LARGE_REQUEST else rounded(size, SEGMENT_UNIT)


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
