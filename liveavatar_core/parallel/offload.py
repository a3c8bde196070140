"""Weights that stand in host memory until they are needed: block by block, or shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from liveavatar_core import scopes
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.torch_private import forward_pre_hooks


class Arrival:
    """Hook of a block whose weights are brought before it works."""

    def __init__(self, begin: Callable[[int], None], index: int) -> None:
        self._begin, self._index = begin, index

    def __call__(self, *_: object) -> None:
        """The block is about to work."""
        self._begin(self._index)


def is_brought(block: nn.Module) -> bool:
    """Whether the weights of `block` come for each call and go after it."""
    return any(isinstance(hook, Arrival) for hook in forward_pre_hooks(block))


class BlockOffload:
    """Blocks that are called one after the other: each is on its way to the card while the one before it works.

    Two of them are on the card at a time. On CUDA copies run on a stream of their own, out of pinned memory.
    """

    def __init__(self, owner: nn.Module, blocks: Sequence[nn.Module], memory: Memory) -> None:
        """`blocks` stand in host memory; `owner`'s forward calls them in order, the first one at its beginning."""
        self._memory = memory
        self._cuda = memory.card.type == "cuda"
        self._stream = torch.cuda.Stream(memory.card) if self._cuda else None
        self._resting = [self._pinned(block) for block in blocks]
        self._arrivals: dict[int, torch.cuda.Event | None] = {}
        owner.register_forward_pre_hook(lambda *_: self._fetch(0))
        for index, block in enumerate(blocks):
            block.register_forward_pre_hook(Arrival(self._begin, index))
            block.register_forward_hook(lambda *_, index=index: self._leave(index))

    def _pinned(self, block: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        if self._cuda:
            for parameter in block.parameters():
                parameter.data = parameter.data.pin_memory()
        return [(parameter, parameter.data) for parameter in block.parameters()]

    def _fetch(self, index: int) -> None:
        """Begin to bring a block, unless it is there or there is none."""
        if index >= len(self._resting) or index in self._arrivals:
            return
        with self._on_stream(), scopes.category("parameters"):
            for parameter, host in self._resting[index]:
                parameter.data = self._memory.move(host, "card", wait=False)
        self._arrivals[index] = self._stream.record_event() if self._stream else None

    def _begin(self, index: int) -> None:
        """A block is about to work: it has to be there, and the next one sets out."""
        self._fetch(index)
        arrival = self._arrivals[index]
        if arrival is not None:
            arrival.wait(torch.cuda.current_stream(self._memory.card))
        self._fetch(index + 1)

    def _leave(self, index: int) -> None:
        """A block has worked: its copy on the card is given up."""
        for parameter, host in self._resting[index]:
            if self._cuda:  # it was born on the other stream; its memory is free when this one is done with it
                parameter.data.record_stream(torch.cuda.current_stream(self._memory.card))
            parameter.data = host
        del self._arrivals[index]

    def _on_stream(self) -> AbstractContextManager:
        if self._stream is None:
            return nullcontext()
        return torch.cuda.stream(self._stream)
