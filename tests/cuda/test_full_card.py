"""What only a card can tell: how it says that it is full, and that a capped allocator really ends there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from liveavatar_core import scopes
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.hardware.oom_message import read_message
from liveavatar_core.parallel.out_of_memory import read_card, typed_out_of_memory

pytestmark = pytest.mark.cuda
CAP = 2**30


@pytest.fixture
def capped(card: torch.device) -> Iterator[torch.device]:
    """A card whose allocator may take a GiB."""
    if card.type != "cuda":
        pytest.skip("the CPU has no allocator that could be capped")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(CAP / torch.cuda.get_device_properties(0).total_memory)
    yield card
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_the_message_of_a_capped_process_has_its_numbers(capped: torch.device):
    with pytest.raises(torch.OutOfMemoryError) as error:
        torch.empty(2 * CAP, dtype=torch.uint8, device=capped)
    message = read_message(str(error.value))
    assert message is not None
    assert message.requested == 2 * CAP
    assert message.capacity == pytest.approx(CAP, rel=0.01)
    assert 0 < message.free <= CAP


def test_a_full_card_is_typed_with_what_was_lacking(capped: torch.device):
    held = torch.empty(CAP // 2, dtype=torch.uint8, device=capped)
    with pytest.raises(OutOfMemory) as caught, typed_out_of_memory(0, partial(read_card, CAP)), scopes.phase("denoise"):
        torch.empty(CAP // 4 * 3, dtype=torch.uint8, device=capped)
    short = caught.value.shortage
    assert (short.phase, short.requested) == ("denoise", CAP // 4 * 3)
    assert short.lacking is not None
    assert 0 < short.lacking <= CAP // 2
    assert short.holders["allocated"] >= held.numel()


def test_pinned_memory_that_is_not_there_is_the_hosts(card: torch.device):
    if card.type != "cuda":
        pytest.skip("memory is pinned for cards alone")
    with pytest.raises(OutOfMemory) as caught, typed_out_of_memory(0), scopes.place("host"):
        torch.empty(2**44, dtype=torch.uint8, pin_memory=True)
    assert caught.value.shortage.category == "host"
