"""How tests wait: for something to happen, never for a time. Free of torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 1200.0
"""Seconds after which what has not happened counts as a hang, on any machine, whatever else runs there. It ends a test
and decides nothing else: it is more than ten times the longest wait that was seen on two busy cores."""
Found = TypeVar("Found")


def wait_until(look: Callable[[], Found], what: Callable[[], object] = lambda: "") -> Found:
    """What `look` finds, as soon as it finds something. AssertionError, with what `what` says, if it never does."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what()}"
        time.sleep(0.02)
    return found
