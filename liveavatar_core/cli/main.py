"""The command line. Errors are two lines on stderr and exit code 2; a signal gives 128 + its number."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from liveavatar_core.cli import fit, generate, inspect
from liveavatar_core.cli.command import PROGRAM
from liveavatar_core.cli.doctor import command as doctor
from liveavatar_core.cli.stop_signals import Stopped, StopSignals
from liveavatar_core.errors import BadInput, LiveAvatarError

COMMANDS = (generate.COMMAND, fit.COMMAND, inspect.COMMAND, doctor.COMMAND)
"""Every command, in the order of --help."""


class Parser(argparse.ArgumentParser):
    """Reports what it cannot read like every other error."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found."""
        raise BadInput(message, f"{self.prog} --help lists every option")


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(prog=PROGRAM, description="Live Avatar: a portrait and a voice become a talking video.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = commands.add_parser(
            command.name, help=command.summary, description=command.summary, allow_abbrev=False
        )
        command.add_options(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    # OpenMP's threads spin while they wait, unless told otherwise before torch is loaded: beside other work on the same
    # cores a video takes ten times as long then.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with StopSignals() as signals:
            options = make_parser().parse_args(arguments)
            return int(options.run(options, signals))
    except LiveAvatarError as error:
        print(two_lines(error), file=sys.stderr)
        return 2
    except Stopped as stopped:
        print("stopped", file=sys.stderr)
        return stopped.exit_code


def two_lines(error: LiveAvatarError) -> str:
    """The error as two lines, whatever it quotes: what could move a terminal's cursor is made visible."""
    return f"{_line(error.what)}\nnext: {_line(error.next_step)}"


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in " ".join(text.split()))
