"""Parts that rest in host memory are pinned where there is a card, lent to it without waiting, never copied back."""

from __future__ import annotations

import pytest
import torch
from stand_in_card import CARD, StandInCard
from torch import nn

from liveavatar_core import scopes
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.offload import pin_resting
from liveavatar_core.simulation.memory_tracker import MemoryTracker

CPU = torch.device("cpu")


def part() -> nn.Module:
    """Two layers that share a weight, and a buffer."""
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.BatchNorm1d(8)).requires_grad_(False)
    module[1].weight = module[0].weight
    return module


def places(module: nn.Module) -> list[int]:
    return [tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())]


def test_on_a_card_it_is_pinned_and_nobody_waits_for_its_way():
    with StandInCard() as card:
        module, memory = part(), Memory(card=CARD)
        tensors = len([*module.parameters(), *module.buffers()])
        pin_resting(module, memory)
        assert len(card.pinned) == tensors
        before = places(module)
        moves: list[tuple[str, bool]] = []
        move = Memory.move

        def told(self: Memory, tensor: torch.Tensor, place: str, *, wait: bool = True) -> torch.Tensor:
            moves.append((place, wait))
            return move(self, tensor, place, wait=wait).as_subclass(torch.Tensor)  # a parameter takes its own type only

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Memory, "move", told)
            with memory.lent(module):
                assert not set(places(module)) & set(before)
        assert moves == [("card", False)] * tensors, "each once, and none back"
        assert places(module) == before
        assert module[0].weight is module[1].weight


def test_without_a_card_nothing_is_pinned():
    with StandInCard() as card:
        pin_resting(part(), Memory(card=CPU))
        assert card.pinned == []


def test_what_is_lent_is_given_back_though_the_work_fails():
    module, memory = part(), Memory(card=CPU)
    before, values = places(module), [tensor.clone() for tensor in module.state_dict().values()]

    def fail() -> None:
        with memory.lent(module):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert places(module) == before
    assert all(map(torch.equal, module.state_dict().values(), values))


def test_a_tracker_sees_what_is_lent_on_the_card_and_at_rest_on_the_host():
    memory = Memory(card=CPU)
    with MemoryTracker() as tracker:
        with scopes.place("host"), scopes.category("parameters"):
            module = nn.Linear(1024, 1024)
        held = tracker.peaks["load"]
        assert (held.allocated, held.host_allocated > 4 * 2**20) == (0, True)
        with scopes.phase("encode"), memory.lent(module):
            pass
        with scopes.phase("denoise"):
            torch.zeros(1)
            with scopes.place("host"):
                torch.zeros(1)
    assert tracker.peaks["encode"].allocated > 4 * 2**20
    assert tracker.peaks["denoise"].allocated < 4096, "it has left the card"
    assert tracker.peaks["denoise"].host_allocated > 4 * 2**20
