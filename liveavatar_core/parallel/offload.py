"""Weights that stand in host memory until they are needed: block by block, or shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from liveavatar_core import scopes
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.pinned_memory import pinned
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


SLOTS = 2
"""Blocks on the card at a time: one that works, one on its way."""


def pin_resting(module: nn.Module, memory: Memory) -> None:
    """Pin all that `module` has in host memory, if there is a card that it will be copied to."""
    if memory.card.type == "cuda":
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = pinned(tensor.data)


class BlockOffload:
    """Blocks that are called one after the other: each is on its way to the card while the one before it works.

    They come into two slots that are there for as long as the owner works, so however far the host runs ahead of the
    card, a copy waits for the block that had its slot. On CUDA copies run on a stream of their own, out of pinned
    memory; slots belong to the stream that computes, which is the last to work with them.
    """

    def __init__(self, owner: nn.Module, blocks: Sequence[nn.Module], memory: Memory) -> None:
        """`blocks` stand in host memory, all alike; `owner`'s forward calls them in order."""
        self._memory = memory
        self._streams: Any = torch.get_device_module(memory.card)
        self._copying: Any = self._streams.Stream(memory.card)
        self._resting = [self._pinned(block) for block in blocks]
        self._slots: list[list[Tensor]] = []
        self._passed: list[torch.Event | None] = []
        """For each slot, when the block that had it has worked."""
        self._arrivals: dict[int, torch.Event | None] = {}
        owner.register_forward_pre_hook(self._open)
        owner.register_forward_hook(self._close)
        for index, block in enumerate(blocks):
            block.register_forward_pre_hook(Arrival(self._begin, index))
            block.register_forward_hook(lambda *_, index=index: self._leave(index))

    def _pinned(self, block: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        if self._memory.card.type == "cuda":
            for parameter in block.parameters():
                parameter.data = pinned(parameter.data)
        return [(parameter, parameter.data) for parameter in block.parameters()]

    def _open(self, *_: object) -> None:
        """The owner begins: make the slots, and send for the first block."""
        with scopes.place("card"), scopes.category("parameters"):
            self._slots = [
                [torch.empty_like(host, device=self._memory.card) for _, host in self._resting[0]]
                for _ in range(min(SLOTS, len(self._resting)))
            ]
        self._passed = [self._now()] * len(self._slots)
        self._fetch(0)

    def _close(self, *_: object) -> None:
        self._slots = []

    def _fetch(self, index: int) -> None:
        """Begin to bring a block, unless it is there or there is none."""
        if index >= len(self._resting) or index in self._arrivals:
            return
        slot = index % len(self._slots)
        with self._streams.stream(self._copying):
            self._copying.wait_event(self._passed[slot])
            for (parameter, host), place in zip(self._resting[index], self._slots[slot], strict=True):
                parameter.data = place.copy_(host, non_blocking=True)
            self._arrivals[index] = self._copying.record_event()

    def _begin(self, index: int) -> None:
        """A block is about to work: it has to be there, and the next one sets out."""
        self._fetch(index)
        self._computing().wait_event(self._arrivals[index])
        self._fetch(index + 1)

    def _leave(self, index: int) -> None:
        """A block has worked: its slot is free for another."""
        for parameter, host in self._resting[index]:
            parameter.data = host
        del self._arrivals[index]
        self._passed[index % len(self._slots)] = self._now()

    def _computing(self) -> Any:
        return self._streams.current_stream(self._memory.card)

    def _now(self) -> torch.Event | None:
        """What the copies wait for, so that they come behind all that computes until now."""
        return self._computing().record_event()
