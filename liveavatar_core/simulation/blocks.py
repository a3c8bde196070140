"""Pieces of the memory that a caching allocator holds, linked with their neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Block:
    """A piece of a segment."""

    address: int
    """Where it begins; segments lie one behind the other, addresses are never used again."""
    size: int
    """Size of the block in bytes."""
    small: bool
    """Whether it is of a pool for small requests."""
    stream: int = 0
    """The stream whose pool it belongs to."""
    used: bool = False
    """Whether a tensor lies in it, or a stream still works with what lay there."""
    mapped: bool = True
    """False: addresses of a segment that can grow, with no memory behind them yet."""
    before: Block | None = None
    """The left neighbour in the segment."""
    after: Block | None = None
    """The right neighbour in the segment."""

    @property
    def key(self) -> tuple[int, int]:
        """Best fit is the smallest, then the lowest."""
        return self.size, self.address

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + self.size


def joined(one: Block, other: Block) -> Block:
    """Two neighbours as one: the left one of them, grown."""
    left, right = (one, other) if one.address < other.address else (other, one)
    left.size += right.size
    left.after = right.after
    if right.after is not None:
        right.after.before = left
    return left


def cut(block: Block, size: int) -> Block:
    """Leave `size` bytes to a block; returns what was behind them, as a block like it."""
    rest = Block(block.address + size, block.size - size, block.small, block.stream, mapped=block.mapped)
    rest.before, rest.after = block, block.after
    if block.after is not None:
        block.after.before = rest
    block.after, block.size = rest, size
    return rest


def stretches(blocks: list[Block]) -> Iterator[tuple[Block, Block]]:
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


def rounded(size: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `size`, and not 0."""
    return max(-(-size // unit), 1) * unit
