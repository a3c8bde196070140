"""A card that is not there: code for CUDA runs on fake tensors, in a build of torch without CUDA too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from liveavatar_core import scopes
from liveavatar_core.config import Recipe
from liveavatar_core.model.layers import RMSNorm
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.pinned_memory import LEAST_EXACT, pinned
from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank
from liveavatar_core.simulation.fake_card import CARD, fake_card
from liveavatar_core.simulation.fake_tensors import QuickFakeMode
from liveavatar_core.simulation.fake_world import CPU
from liveavatar_core.simulation.indexing import get_item, set_item
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.simulation.memory_tracker import MemoryTracker

INDICES: list[Any] = [
    0,
    -1,
    slice(None),
    slice(1, None),
    slice(2, 1),
    slice(None, None, 2),
    None,
    ...,
    (slice(None), 1),
    (..., 0),
    (..., slice(0, 2)),
    (None, slice(None), None, 2),
    (slice(None), None, slice(1, 3)),
    (0, 1, 2),
    torch.tensor([0, 2]),
    (slice(None), torch.tensor([1, 0])),
    ([2, 0], slice(1, 2)),
]


def operations(work: Any, *given: Tensor) -> list[str]:
    """The operations that some work on fake tensors of a card takes."""
    seen: list[str] = []
    with fake_card(), QuickFakeMode() as mode, torch.no_grad():
        arguments = [torch.empty(each.shape, dtype=each.dtype, device=CARD) for each in given]
        with mode.observed(lambda func, args, out: seen.append(str(func))):
            work(*arguments)
    return seen


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing_gives_what_torch_gives(index: Any) -> None:
    x = torch.arange(60).reshape(3, 4, 5)
    mine, given = get_item(x, index), x[index]
    assert (mine.shape, mine.stride(), mine.storage_offset()) == (given.shape, given.stride(), given.storage_offset())
    assert torch.equal(mine, given)


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("whole", [False, True])
def test_assigning_puts_what_torch_puts(index: Any, whole: bool) -> None:
    mine, given = (torch.arange(60).reshape(3, 4, 5) for _ in range(2))
    value = -torch.ones_like(given[index]) if whole else 7
    set_item(mine, index, value)
    given[index] = value
    assert torch.equal(mine, given)


def test_a_mask_chooses_as_in_torch() -> None:
    x = torch.arange(12).reshape(3, 4)
    assert torch.equal(get_item(x, (x % 2 == 0,)), x[x % 2 == 0])


def move(module: nn.Module, memory: Memory, place: str) -> None:
    for weight in module.parameters():
        weight.data = memory.move(weight, place)


def test_what_is_moved_says_so() -> None:
    """Also where the tensor stays the same one, and only its data are others."""
    with fake_card(), QuickFakeMode(), torch.no_grad():
        module, memory = nn.Linear(4, 4), Memory(card=CARD)
        move(module, memory, "card")
        assert {weight.device for weight in module.parameters()} == {CARD}
        assert module(torch.empty(2, 4, device=CARD)).device == CARD
        move(module, memory, "host")
        assert {weight.device for weight in module.parameters()} == {CPU}


def test_a_tracker_reads_the_memory_from_the_device() -> None:
    """And not from what the code says of itself."""
    with fake_card(), QuickFakeMode(), MemoryTracker(card=CARD) as tracker, scopes.place("host"):
        on_card, on_host = torch.empty(1024, device=CARD), torch.empty(512)
        on_card.untyped_storage().resize_(8192)
        assert tracker.allocated == {"card": 8192, "host": 2048}
        del on_card, on_host


def test_norms_and_attention_are_the_kernels_of_a_card() -> None:
    tokens = torch.empty(1, 2, 16, 64, dtype=torch.bfloat16)
    *_, kernel = operations(lambda x: RMSNorm(64).to(CARD, torch.bfloat16)(x), tokens)
    assert kernel == "aten._fused_rms_norm.default"
    attend = F.scaled_dot_product_attention

    def attends(*given: Tensor) -> list[str]:
        return operations(lambda *made: F.scaled_dot_product_attention(*made), *given)

    assert attends(tokens, tokens, tokens) == ["aten._scaled_dot_product_flash_attention.default"]
    wide = torch.empty(1, 1, 16, 384, dtype=torch.bfloat16)
    assert attends(wide, wide, wide) == ["aten._scaled_dot_product_efficient_attention.default"]
    *_, kernel = attends(tokens, tokens, tokens, torch.empty(1, 1, 16, 16, dtype=torch.bfloat16))
    assert kernel == "aten._scaled_dot_product_efficient_attention.default"
    assert F.scaled_dot_product_attention is attend


def test_small_pieces_are_pinned_in_powers_of_two_and_large_ones_where_they_are() -> None:
    with fake_card(), QuickFakeMode():
        small, large = torch.empty(300), torch.empty(LEAST_EXACT)
        assert not small.is_pinned()
        copy = pinned(small)
        assert (copy.is_pinned(), copy.shape, copy.untyped_storage().nbytes()) == (True, small.shape, 2048)
        assert pinned(large) is large
        assert large.is_pinned()


def test_torch_is_afterwards_what_it_was() -> None:
    names = ("Stream", "current_stream", "is_available", "cudart")
    before = [getattr(torch.cuda, name) for name in names], dict(vars(Tensor)), torch.tensor
    with fake_card():
        assert torch.cuda.is_available()
    assert ([getattr(torch.cuda, name) for name in names], dict(vars(Tensor)), torch.tensor) == before


def both(recipe: Recipe, rank: int) -> tuple[SimulatedRank, SimulatedRank]:
    on_cpu, on_card = (simulate_rank(recipe, rank, Capacity(), card=card) for card in (CPU, CARD))
    return on_cpu, on_card


@pytest.mark.parametrize(("name", "cards"), [("published_sharded", 5), ("block_offload_fp8", 1)])
def test_a_run_holds_on_a_card_what_it_holds_on_the_cpu(name: str, cards: int) -> None:
    on_cpu, on_card = both(miniature(named_recipe(name, cards)), 0)
    flops = [sum(each.flops * times for each, times in made.work.items()) for made in (on_cpu, on_card)]
    assert flops[0] == flops[1] > 0
    for phase, peak in on_cpu.peaks.items():
        assert on_card.peaks[phase].allocated == pytest.approx(peak.allocated, rel=0.05), phase


def test_a_fake_card_repeats_what_it_executed() -> None:
    recipe = miniature(named_recipe("block_offload", 1))
    repeated, executed = (
        simulate_rank(recipe, 0, Capacity(), card=CARD, execute_everything=everything) for everything in (False, True)
    )
    assert repeated.units_repeated > executed.units_repeated == 0
    assert (repeated.peaks, repeated.work) == (executed.peaks, executed.work)
