"""What a memory tracker has done beside a run, so that it sees what a card would hold, and the same every time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from liveavatar_core import scopes
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.hooks import RunHooks
from liveavatar_core.torch_private import holders_of, set_shard_data, shard_data, sharded_parameters

PATIENCE_SECONDS = 60.0
"""Far longer than gloo's thread takes on any machine: only a buffer that somebody keeps is waited for so long."""


@contextmanager
def released_after(*buffers: Tensor) -> Iterator[None]:
    """Leave only when nobody but the caller holds the buffers of the collective inside.

    Gloo's thread lets go of them a moment after it has said that it is done. Freed at a moment of its own, a buffer
    would make the same run hold more memory one time than another. NCCL and fake groups hold nothing.
    """
    before = _holders(buffers)
    yield
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _holders(buffers) > before and time.monotonic() < deadline:
        time.sleep(0)


def _holders(buffers: tuple[Tensor, ...]) -> list[int]:
    return [holders_of(buffer) for buffer in buffers]


class ShardCopies:
    """Where one device plays card and host: copies a unit's shards while they are gathered, as FSDP does between two.

    FSDP's own copy is left out where nothing has to move, and a tracker would not see what a card has to hold.
    """

    def __init__(self, unit: nn.Module, memory: Memory) -> None:
        self._unit, self._memory = unit, memory
        self._resting: list[tuple[Any, torch.Tensor]] = []

    def begin(self, *_: Any) -> None:
        """Hook: the gather begins."""
        self._resting = [(parameter, shard_data(parameter)) for parameter in sharded_parameters(self._unit)]
        with scopes.category("unsharded_parameters"):
            for parameter, data in self._resting:
                set_shard_data(parameter, self._memory.move(data, "card"))

    def end(self, *_: Any) -> None:
        """Hook: the gather is done."""
        for parameter, data in self._resting:
            set_shard_data(parameter, data)


def copy_shards(unit: nn.Module, memory: Memory) -> None:
    """Register ShardCopies around the gather of `unit`, where one device plays card and host."""
    if memory.card == memory.host:
        copies = ShardCopies(unit, memory)
        unit.register_forward_pre_hook(copies.begin, prepend=True)
        unit.register_forward_pre_hook(copies.end)


COUNTING = RunHooks(exchange=released_after, shards_rest=copy_shards)
