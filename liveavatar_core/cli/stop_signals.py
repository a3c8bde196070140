"""Ctrl-C and SIGTERM as an exception that waits while a file is being written."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asked this process to end. No Exception, so that no library takes it for its own failure."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 + signal, as shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


class StopSignals:
    """While entered, the first SIGINT or SIGTERM raises Stopped in the main thread; later ones do nothing.

    One that was ignored stays ignored: a shell starts what it runs in the background so, that a Ctrl-C which is meant
    for something else does not end it.
    """

    def __init__(self) -> None:
        self._held = False
        self._signum: int | None = None
        self._raised = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        heeded = [signum for signum in _STOP_SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
        self._previous = {signum: signal.signal(signum, self._receive) for signum in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def hold(self) -> None:
        """From now on a signal is remembered and no longer raised."""
        self._held = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal that comes inside is raised at the end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self._raise_pending()

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self._signum = self._signum or signum
        if not self._held:
            self._raise_pending()

    def _raise_pending(self) -> None:
        if self._signum is not None and not self._raised:
            self._raised = True
            raise Stopped(self._signum)
