"""Ctrl-C while something must be finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Finish what is inside; a Ctrl-C (or several) meanwhile raises KeyboardInterrupt afterwards.

    Nothing to hold where Ctrl-C is ignored, as in what a shell starts in the background, and outside the main thread.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()  # no other sees a KeyboardInterrupt
    if not in_main_thread or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
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
