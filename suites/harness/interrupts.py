"""Ctrl-C while something must be finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Finish what is inside; a Ctrl-C (or several) meanwhile raises KeyboardInterrupt afterwards."""
    if threading.current_thread() is not threading.main_thread():  # which never sees a KeyboardInterrupt
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
