"""Blocks on their way to a card: no block works before its weights are there, no copy overwrites one that works."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from stand_in_card import CARD
from stand_in_streams import StandInStreams, Stream
from torch import Tensor, nn

from liveavatar_core.parallel import offload
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.offload import BlockOffload

BLOCKS, PASSES = 5, 3


class Scale(nn.Module):
    """A block whose weights are known by what they do."""

    def __init__(self, factor: float, streams: StandInStreams) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), factor), requires_grad=False)
        self._streams = streams

    def forward(self, x: float) -> float:
        self._streams.read(self.weight.data)
        return x * float(self.weight[0])


class Blocks(nn.Module):
    """They work one after the other."""

    def __init__(self, streams: StandInStreams) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Scale(float(2 + index), streams) for index in range(BLOCKS))

    def forward(self, x: float) -> float:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInStreams]:
    with StandInStreams() as stand_in:
        monkeypatch.setattr(torch, "get_device_module", lambda device: stand_in)
        monkeypatch.setattr(torch, "empty_like", lambda host, device: host.new_empty(host.shape))
        yield stand_in


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The memory that was pinned."""
    found: list[int] = []

    def pin(tensor: Tensor) -> Tensor:
        found.append(tensor.data_ptr())
        return tensor

    monkeypatch.setattr(offload, "pinned", pin)
    return found


def run(streams: StandInStreams) -> list[float]:
    owner = Blocks(streams)
    BlockOffload(owner, list(owner.blocks), Memory(card=CARD))
    return [owner(1.0) for _ in range(PASSES)]


def test_every_block_has_its_own_weights_in_order_out_of_pinned_memory(streams, pinned):
    assert run(streams) == [720.0] * PASSES
    assert streams.races == []
    assert streams.copies == [1] * BLOCKS * PASSES, "on a stream of their own"
    assert len(pinned) == BLOCKS
    assert set(streams.copied_from) == set(pinned)


@pytest.mark.parametrize(
    ("forgetful", "race"),
    [(0, "read before it arrived"), (1, "overwritten before it was used")],
    ids=["blocks do not wait for weights", "copies do not wait for blocks"],
)
def test_a_wait_that_is_forgotten_is_found(streams, pinned, monkeypatch, forgetful, race):
    wait = Stream.wait_event
    monkeypatch.setattr(
        Stream, "wait_event", lambda stream, event: None if stream.number == forgetful else wait(stream, event)
    )
    run(streams)
    assert race in streams.races
