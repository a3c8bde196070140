"""What only a card can tell: its out-of-memory message, and that a capped allocator really ends there."""

from __future__ import annotations

import pytest

from liveavatar_core.hardware.oom_message import read_message

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")]


def test_the_message_of_a_capped_process_has_its_numbers():
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    with pytest.raises(torch.OutOfMemoryError) as error:
        torch.empty(2**31, dtype=torch.uint8, device="cuda")
    torch.cuda.set_per_process_memory_fraction(1.0)
    message = read_message(str(error.value))
    assert message.requested == 2**31
    assert message.capacity == pytest.approx(2**30, rel=0.01)
