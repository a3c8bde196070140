"""`python -m liveavatar_core COMMAND ...`. Ctrl-C is heeded from here on: importing the commands takes a while."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def stop(signum: int, frame: FrameType | None) -> NoReturn:
    """End at once, as commands do: one word, and 128 + the signal's number. There is nothing to put in order yet."""
    os.write(2, b"stopped\n")
    os._exit(128 + signum)


def start() -> NoReturn:
    """Run a command; what `liveavatar` is, too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    from liveavatar_core.cli.main import main

    sys.exit(main())


if __name__ == "__main__":
    start()
