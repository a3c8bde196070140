"""What the model does on a card that it would not have to do on the CPU: seen on a stand-in."""

from __future__ import annotations

import pytest
import torch
from stand_in_card import CARD, StandInCard
from test_model import PARAMS

from liveavatar_core.model import layers
from liveavatar_core.model.cache import HostKVCache
from liveavatar_core.model.layers import Float32Conv1d


def test_caches_in_host_memory_are_pinned_and_nobody_waits_for_them():
    with StandInCard() as card, torch.no_grad():
        cache = HostKVCache.allocate(PARAMS, 1, 8, 4, torch.float32, CARD)
        assert len(card.pinned) == 2 * PARAMS.num_layers
        new = torch.ones(1, 4, 3, 12, device=CARD)
        cache.write(0, new, new * 2, 2)
        k, v = cache.read(0, 8)
        assert card.waited_for == []
        assert (k.device, v.device) == (CARD, CARD)
        assert (float(k.sum()), float(v.sum())) == (new.numel(), 2 * new.numel())
        k.cpu()
        assert card.waited_for == ["cpu"]


@pytest.mark.parametrize("before", [True, False])
def test_a_float32_convolution_keeps_all_bits_and_no_setting_changes(monkeypatch: pytest.MonkeyPatch, before: bool):
    seen: list[bool] = []
    convolve = torch.nn.functional.conv1d
    told = lambda *args: seen.append(torch.backends.cudnn.allow_tf32) or convolve(*args)  # noqa: E731
    monkeypatch.setattr(layers.F, "conv1d", told)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=before):
        made = Float32Conv1d(4, 4, 3)(torch.ones(1, 4, 8))
        assert torch.backends.cudnn.allow_tf32 is before
    assert seen == [False]
    assert made.dtype == torch.float32
