"""A rank's own end: what it is told, and how it answers its parent. Free of torch.

Up go tuples `(kind, text)`: `started`, `report` (a RankReport), `reply` (what the command answers with), `failing`
(and busy with writing down why), `error` (an ErrorReport). Down goes the RankSpec, then Commands, then None. A rank
that sees the other end closed ends at once.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import io
import os
import queue
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from suites.harness.messages import RankReport
from suites.harness.processes.link import ErrorReport, Link, Message, RankCommand, decoded, encoded

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RankSpec:
    """Everything that a rank's process is given. Plain types, as nothing is imported yet."""

    target: str
    """The function to run, as `package.module:function`."""
    job: str
    """The job of every rank of the group: a dataclass as JSON text."""
    rank: int
    """The rank's number, 0 .. world_size - 1."""
    world_size: int
    """The number of ranks in the group."""
    rendezvous: str
    """The place where the ranks meet, as torch's `init_method`."""
    log: str
    """File that takes standard output and standard error."""
    directory: str
    """The working directory."""
    environ: dict[str, str]
    """The whole environment."""
    sys_path: list[str]
    """The parent's import path."""


class ChildLink:
    """The Link of a rank that was forked: a channel to its parent."""

    def __init__(self, connection: Connection, spec: RankSpec) -> None:
        """Once `connection` closes, the process group that this is called in is killed: `run_rank` leads one."""
        self.rank, self.world_size, self.rendezvous = spec.rank, spec.world_size, spec.rendezvous
        self._job = spec.job
        self._connection = connection
        self._sending = threading.Lock()
        self._commands: queue.SimpleQueue[RankCommand | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def job(self, kind: type[T]) -> T:
        """The job of every rank, as a `kind`. Raises BadData where it is something else."""
        return decoded(kind, self._job, "the job")

    def next_command(self) -> RankCommand | None:
        """Wait for the next command; None when there are no more."""
        return self._commands.get()

    def commands(self) -> Iterator[RankCommand]:
        """Every command until there are no more."""
        return iter(self._commands.get, None)

    def reply(self, message: Message) -> None:
        """Answer the last command."""
        self._send("reply", encoded(message))

    def report(self, report: RankReport) -> None:
        """Tell how far this rank is; may be called from any thread."""
        self._send("report", encoded(report))

    def failing(self) -> None:
        """Tell that this rank fails and still writes down what it holds: it is not ended before that is done."""
        self._send("failing", "")

    def started(self) -> None:
        """Tell that the target was found."""
        self._send("started", "")

    def error(self, error: BaseException) -> None:
        """Tell why this rank ends."""
        self._send("error", encoded(ErrorReport.of(error)))

    def _send(self, kind: str, text: str) -> None:
        with self._sending:
            self._connection.send((kind, text))

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._commands.put(self._connection.recv())
        os.killpg(os.getpgrp(), signal.SIGKILL)  # a rank leads its group: itself, and all that it started


def run_rank(channel: int) -> int:
    """Be a rank: run the target that arrives over the file descriptor `channel`; the exit status."""
    connection = Connection(channel)
    spec: RankSpec = connection.recv()
    _move_in(spec)
    return _run_target(ChildLink(connection, spec), spec.target)


def _run_target(link: ChildLink, name: str) -> int:
    try:
        target = _resolve(name)
        link.started()
        target(link)
    except SystemExit as request:
        return request.code if isinstance(request.code, int) else int(request.code is not None)
    except BaseException as error:
        traceback.print_exc()
        link.error(error)
        return 1
    return 0


def _resolve(name: str) -> Callable[[Link], None]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _move_in(spec: RankSpec) -> None:
    """Turn a fork of the server into the process that `spec` describes."""
    # The parent ends its ranks; one that ended by itself on Ctrl-C would look like the cause.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _redirect_output(Path(spec.log))
    os.chdir(spec.directory)
    os.environ.clear()
    os.environ.update(spec.environ)
    sys.path[:] = spec.sys_path
    if torch := sys.modules.get("torch"):  # imported before the fork, when OMP_NUM_THREADS was another
        torch.set_num_threads(int(spec.environ["OMP_NUM_THREADS"]))
    # The dump of a rank that holds the model would outlast every deadline.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    faulthandler.enable(2)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)


def _redirect_output(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # so that the last lines of a rank that is killed are there
    os.close(descriptor)
