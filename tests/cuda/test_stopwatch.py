"""Marks of a card's stream and readings of the host's clock agree on how long the same work took."""

from __future__ import annotations

import time

import pytest
import torch

from liveavatar_core import scopes
from liveavatar_core.parallel import hooks
from suites.harness.probes.phase_clock import HostStopwatch, PhaseClock
from suites.harness.workers.cuda import CardStopwatch

pytestmark = pytest.mark.cuda


def test_parts_of_a_cards_work_add_up_to_what_the_host_waited(card: torch.device):
    stopwatch = CardStopwatch() if card.type == "cuda" else HostStopwatch()
    x = torch.ones(1024, 1024, device=card)
    with PhaseClock(stopwatch) as clock:
        clock.loaded()
        clock.take(None)
        clock.pause()
        started = time.monotonic()
        clock.resume()
        for _ in range(20):
            with scopes.phase("denoise"):
                x = (x @ x).clamp(0, 1)
                with hooks.exchange():
                    x = (x @ x).clamp(0, 1)
        parts = clock.take(0)
        taken = time.monotonic() - started
    assert {"denoise", "communication"} <= parts.keys()
    assert 0 < parts["denoise"] + parts["communication"] <= sum(parts.values()) <= taken
