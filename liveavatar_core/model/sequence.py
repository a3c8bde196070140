"""How the tokens of a pass lie over ranks: the interface and the trivial layout; see deploy/ulysses.py.

Legend: B batch, F frames, S tokens of a frame, s this rank's part of S, L = F*S, l = F*s, H heads, h this
rank's heads, D head or token width, C channels.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class SequenceLayout(Protocol):
    """Splits the S tokens of every frame over ranks; attention sees all tokens and this rank's heads.

    Attention keeps tokens in the layout's own order (`order`), the same for queries, keys and rotary tables.
    """

    def heads(self, num_heads: int) -> int:
        """How many of the heads this rank has."""

    def split(self, x_BFSD: Tensor) -> Tensor:
        """The tokens of every frame that this rank has: BFsD."""

    def to_heads(self, x_BHlD: Tensor, frames: int, tokens: int) -> Tensor:
        """From this rank's tokens and all heads to all tokens in layout order and this rank's heads, BhLD."""

    def to_tokens(self, x_BhLD: Tensor, frames: int, tokens: int, num_heads: int) -> Tensor:
        """The way back."""

    def order(self, table_LX: Tensor, frames: int) -> Tensor:
        """The rows of a table of all tokens (order f, s), put in layout order."""

    def gather(self, x_BFsC: Tensor, tokens: int) -> Tensor:
        """All tokens of every frame, BFSC, on every rank."""


class WholeSequence:
    """One rank has everything."""

    def heads(self, num_heads: int) -> int:
        """Everything: one rank has it all."""
        return num_heads

    def split(self, x_BFSD: Tensor) -> Tensor:
        """Everything: one rank has it all."""
        return x_BFSD

    def to_heads(self, x_BHlD: Tensor, frames: int, tokens: int) -> Tensor:
        """The input itself: one rank has every token and every head."""
        return x_BHlD

    def to_tokens(self, x_BhLD: Tensor, frames: int, tokens: int, num_heads: int) -> Tensor:
        """The input itself: one rank has every token and every head."""
        return x_BhLD

    def order(self, table_LX: Tensor, frames: int) -> Tensor:
        """The table itself: one rank has every token, frame by frame."""
        return table_LX

    def gather(self, x_BFsC: Tensor, tokens: int) -> Tensor:
        """The input itself: one rank has every token."""
        return x_BFsC
