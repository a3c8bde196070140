"""The commands of the command line, one module each; free of torch until they run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from liveavatar_core.cli.stop_signals import StopSignals

PROGRAM = "python -m liveavatar_core"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A word of the command line and what it does."""

    name: str
    """The word."""
    summary: str
    """One line for --help."""
    add_options: Callable[[argparse.ArgumentParser], None]
    """Declares its options."""
    run: Callable[[argparse.Namespace, StopSignals], int]
    """Does it; returns the exit code. Raises LiveAvatarError, and Stopped when a signal asks it to end."""
