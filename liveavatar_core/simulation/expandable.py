"""The caching allocator with expandable segments: one for each pool, which grows page by page.

After try_allocate_expandable_block, map_block, unmap_block and get_free_block of CUDACachingAllocator.cpp. What cannot
be told apart from it: a segment's addresses never end here, and on a card after nine eighths of its memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from liveavatar_core.simulation.allocator import (
    LARGE_SEGMENT,
    SMALL_REQUEST,
    SMALL_SEGMENT,
    SMALLEST_BLOCK,
    CachingAllocator,
)
from liveavatar_core.simulation.blocks import Block, cut, joined, rounded

ADDRESSES = 20 * 2**45
"""Addresses of each segment; no memory stands behind them until it is mapped. A multiple of every page size."""


class ExpandableAllocator(CachingAllocator):
    """Reserved is what is mapped: pages of 2 MiB in pools for small requests, of 20 MiB in the others."""

    def __init__(self, capacity: int | None = None) -> None:
        super().__init__(capacity)
        self._unmapped: dict[tuple[int, bool], list[Block]] = {}
        """Blocks of each pool, by address; the last has no end."""

    def _addressed(self) -> Iterator[Block]:
        yield from self.blocks()
        for holes in self._unmapped.values():
            yield from holes

    def _segment(self, size: int, stream: int) -> Block | None:
        """Map what a request lacks, at the lowest address where there is room for it."""
        self._known.clear()  # which free blocks could grow is no part of the fingerprint
        hole = self._hole(size, stream, small=size <= SMALL_REQUEST)
        block = hole.before
        if block is not None and not block.used:
            self._withdraw(block)
        else:
            first = self._map(hole, min(size, hole.size))
            if first is None:
                return None
            block = self._with_free_behind(first)
        while block.size < size:
            more = self._map(_behind(block), min(size - block.size, _behind(block).size))
            if more is None:
                self._offer(block)
                return None
            block = self._with_free_behind(joined(block, more))
        return block

    def _with_free_behind(self, block: Block) -> Block:
        """A free block that is in no pool, and the free one behind it if there is one."""
        after = block.after
        if after is None or after.used or not after.mapped:
            return block
        self._withdraw(after)
        return joined(block, after)

    def _hole(self, size: int, stream: int, *, small: bool) -> Block:
        """The lowest addresses without memory where, with free blocks around them, there is room for a request."""
        holes = self._unmapped.setdefault((stream, small), [])
        for hole in holes:
            room, block = 0, hole.before
            if block is None or block.used:
                block = hole
            while room < size and block is not None and not block.used:
                room, block = room + block.size, block.after
            if room >= size:
                return hole
        segment = Block(self._next_address, ADDRESSES, small, stream, mapped=False)
        self._next_address += ADDRESSES
        holes.append(segment)
        return segment

    def _map(self, hole: Block, size: int) -> Block | None:
        """Put memory behind the first `size` bytes of addresses, in whole pages; None where the card has none left."""
        nbytes = rounded(size, _page(hole))
        if not self._may_reserve(nbytes):
            return None
        holes = self._unmapped[hole.stream, hole.small]
        place = holes.index(hole)
        if nbytes < hole.size:
            holes[place] = cut(hole, nbytes)
        else:
            del holes[place]
        hole.mapped = True
        self.reserved += nbytes
        return hole

    def _release(self) -> None:
        """Unmap every page in which nothing lies."""
        self._known.clear()
        for block in list(self._idle.values()):
            page = _page(block)
            first, last = rounded(block.address, page) if block.address else 0, block.end // page * page
            if first < last:
                self._withdraw(block)
                self._unmap(block, first, last)

    def _unmap(self, block: Block, first: int, last: int) -> None:
        """Take the memory from the addresses `first` to `last` of a free block; what is left of it stays free."""
        if last < block.end:
            self._offer(cut(block, last - block.address))
        if block.address < first:
            hole = cut(block, first - block.address)
            self._offer(block)
        else:
            hole = block
        self.reserved -= hole.size
        hole.mapped = False
        holes = self._unmapped[hole.stream, hole.small]
        for neighbour in (hole.before, hole.after):
            if neighbour is not None and not neighbour.mapped:
                holes.remove(neighbour)
                hole = joined(hole, neighbour)
        holes.append(hole)
        holes.sort(key=lambda each: each.address)

    def _chosen(self, pool: list[tuple[int, int]], place: int) -> Block:
        """The best fit; of blocks that could grow, the size that they could grow to counts."""
        block = self._idle[pool[place][1]]
        for following in range(place + 1, len(pool)):
            larger = self._idle[pool[following][1]]
            if _could_be(larger) >= _could_be(block):
                break
            block = larger
        return block

    def _is_worth_it(self, rest: int, small: bool) -> bool:
        return rest >= SMALLEST_BLOCK


def _page(block: Block) -> int:
    return SMALL_SEGMENT if block.small else LARGE_SEGMENT


def _behind(block: Block) -> Block:
    assert block.after is not None  # a segment's addresses do not end
    return block.after


def _could_be(block: Block) -> int:
    """Bytes of a free block, and of the addresses behind it that have no memory yet."""
    after = block.after
    return block.size + (after.size if after is not None and not after.mapped else 0)
