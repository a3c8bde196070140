"""What a rank on a card tells when it fails: where it was, with what it had read by then."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from liveavatar_core import scopes
from liveavatar_core.config import Recipe
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.parallel.out_of_memory import CardBytes, typed_out_of_memory
from suites.harness.messages import ClipJob
from suites.harness.workers.cuda import CardProbe

JOB = ClipJob(recipe=Recipe(name="any"), folder="", video="", card_uuids=("GPU-0000",))
CARD = CardBytes(capacity=10, allocated=9, reserved=9, free=1)


def test_a_rank_that_runs_out_says_in_which_phase(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    told = []
    link = SimpleNamespace(rank=0, report=told.append)
    with pytest.raises(OutOfMemory), CardProbe(link, JOB), typed_out_of_memory(0, lambda: CARD):  # noqa: SIM117
        with scopes.phase("denoise"):
            raise torch.AcceleratorError("CUDA error: out of memory")
    assert [report.phase for report in told] == ["denoise", "denoise"]
