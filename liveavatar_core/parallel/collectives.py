"""What is the same about every collective of ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

PATIENCE_SECONDS = 60.0
"""Far longer than that thread takes on any machine: only a buffer that somebody keeps would be waited for so long."""


@contextmanager
def released_after(*buffers: Tensor) -> Iterator[None]:
    """Leave only when nobody but the caller holds the buffers of the collective inside.

    Gloo's thread lets go of them a moment after it has said that it is done. Freed at a moment of its own, a buffer
    would make the same run hold more memory one time than another. NCCL and fake groups hold nothing.
    """
    before = _holders(buffers)
    yield
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _holders(buffers) > before and time.monotonic() < deadline:
        time.sleep(0)


def _holders(buffers: tuple[Tensor, ...]) -> list[int]:
    return [buffer._use_count() for buffer in buffers]  # type: ignore[attr-defined]
