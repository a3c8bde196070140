"""The card that these tests compare with the CPU. LIVE_AVATAR_CARD=cpu rehearses them without one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def card() -> Iterator[torch.device]:
    """The first card; tests are skipped where there is none."""
    name = os.environ.get("LIVE_AVATAR_CARD", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no card")
    with torch.no_grad():
        yield torch.device(name)
