"""Sequence parallelism: each rank holds a part of every frame's tokens; attention exchanges tokens for heads.

Legend: R ranks, B batch, F frames, S tokens of a frame, s this rank's part of S, L = F*S, l = F*s, H heads,
h this rank's heads, D head or token width, C channels.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.parallel.hooks import exchange


def shares(total: int, ranks: int) -> list[int]:
    """`total` things over ranks, as even as can be, the first ranks having more: 40 over 3 is 14, 13, 13."""
    least, more = divmod(total, ranks)
    return [least + (rank < more) for rank in range(ranks)]


class Ulysses:
    """A SequenceLayout over the ranks of a process group, for any numbers of heads and tokens.

    Layout order is rank by rank, within a rank frame by frame. Inference only: the exchanges
    carry no gradient.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """`group`: None is the default group."""
        self.group = group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)

    def heads(self, num_heads: int) -> int:
        """How many of the heads this rank has."""
        return self._shares(num_heads, "attention heads")[self.rank]

    def split(self, x_BFSD: Tensor) -> Tensor:
        """The tokens of every frame that this rank has: BFsD."""
        sizes = self._shares(x_BFSD.shape[2], "tokens of a frame")
        return x_BFSD.split(sizes, dim=2)[self.rank].contiguous()

    def to_heads(self, x_BHlD: Tensor, frames: int, tokens: int) -> Tensor:
        """From this rank's tokens and all heads to all tokens in layout order and this rank's heads, BhLD."""
        batch, num_heads, length, width = x_BHlD.shape
        heads = self._shares(num_heads, "attention heads")
        sizes = [length * batch * count * width for count in heads]
        mine = batch * heads[self.rank] * width
        sent = x_BHlD.new_empty(sum(sizes))
        for slot, part in zip(sent.split(sizes), x_BHlD.permute(2, 0, 1, 3).split(heads, dim=2), strict=True):
            slot.view(part.shape).copy_(part)
        received = self._exchange(
            sent, sent=sizes, received=[frames * count * mine for count in shares(tokens, self.ranks)]
        )
        return received.view(-1, batch, heads[self.rank], width).permute(1, 2, 0, 3)

    def to_tokens(self, x_BhLD: Tensor, frames: int, tokens: int, num_heads: int) -> Tensor:
        """The way back."""
        batch, mine, _, width = x_BhLD.shape
        heads, per_frame = shares(num_heads, self.ranks), shares(tokens, self.ranks)
        length = frames * per_frame[self.rank]
        sizes = [length * batch * count * width for count in heads]
        received = self._exchange(
            x_BhLD.permute(2, 0, 1, 3).reshape(-1),
            sent=[frames * count * batch * mine * width for count in per_frame],
            received=sizes,
        )
        parts = zip(received.split(sizes), heads, strict=True)
        x_lBHD = torch.cat([part.view(length, batch, count, width) for part, count in parts], dim=2)
        return x_lBHD.permute(1, 2, 0, 3)

    def order(self, table_LX: Tensor, frames: int) -> Tensor:
        """The rows of a table of all tokens (order f, s), put rank by rank."""
        table_FSX = table_LX.unflatten(0, (frames, -1))
        parts = table_FSX.split(shares(table_FSX.shape[1], self.ranks), dim=1)
        return torch.cat([part.flatten(0, 1) for part in parts])

    def gather(self, x_BFsC: Tensor, tokens: int) -> Tensor:
        """All tokens of every frame, BFSC, on every rank."""
        sizes = shares(tokens, self.ranks)
        x_sBFC = x_BFsC.permute(2, 0, 1, 3).contiguous()
        row = x_sBFC[0].numel()
        received = self._exchange(
            x_sBFC.reshape(-1).repeat(self.ranks),
            sent=[x_sBFC.numel()] * self.ranks,
            received=[size * row for size in sizes],
        )
        return received.view(tokens, *x_sBFC.shape[1:]).permute(1, 2, 0, 3)

    def _shares(self, total: int, name: str) -> list[int]:
        if total < self.ranks:
            raise InvalidRecipe(
                f"{total} {name} cannot be split over {self.ranks} ranks",
                f"give --ulysses_size {total} or less",
            )
        return shares(total, self.ranks)

    def _exchange(self, x: Tensor, *, sent: list[int], received: list[int]) -> Tensor:
        """Send `sent[r]` values to each rank r and take `received[r]` from it; flat, contiguous."""
        if torch.is_grad_enabled() and x.requires_grad:
            raise InvalidRecipe(
                f"a sequence split over {self.ranks} ranks carries no gradient", "train with ulysses_size 1"
            )
        out = x.new_empty(sum(received))
        with exchange(x, out):
            dist.all_to_all_single(out, x, received, sent, group=self.group)
        return out
