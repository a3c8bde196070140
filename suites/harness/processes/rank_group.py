"""Running ranks as child processes, commanded clip by clip, so that the first real failure ends all of them.

    with RankGroup.start(job, folder) as group:
        loaded = group.command("load", answer=Loaded)
        times = group.command("clip", answer=ClipTime)

The parent never imports torch. Whatever happens here (a failure, Ctrl-C, SIGKILL), no process is left behind.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from liveavatar_core.errors import BadInput
from suites.harness.messages import RankReport
from suites.harness.processes.child_link import RankSpec
from suites.harness.processes.failures import (
    GroupError,
    Kind,
    RankFailure,
    absent,
    count_oom_kills,
    group_failed,
    hung,
    lost_a_peer,
    not_started,
    read_tail,
    waited_in_vain,
)
from suites.harness.processes.fork_client import ForkClient, ForkError, shared_fork_client
from suites.harness.processes.interrupts import interrupts_held
from suites.harness.processes.link import Done, Message, RankCommand, decoded, encoded
from suites.harness.processes.rank_handle import Rank

__all__ = ["GroupError", "Job", "Kind", "RankFailure", "RankGroup"]

T = TypeVar("T")
GRACE_SECONDS = 3.0
"""Seconds after the first failure in which ranks that still work on the command may report theirs."""
CAUSE_SECONDS = 20.0
"""GRACE_SECONDS where all that is seen are ranks that lost a peer: something else started it. A killed process that
held much memory takes seconds to end."""
SNAPSHOT_SECONDS = 300.0
"""Seconds that a rank that fails may take to write down what it holds; a snapshot of a full card is some hundred MB."""
TERMINATE_SECONDS = 1.0
"""Seconds between SIGTERM and SIGKILL."""
KILL_SECONDS = 30.0
"""Seconds that the kernel may take to end a killed process (a card's driver has to let go of it)."""
STACKS_SECONDS = 5.0
"""Seconds for hung ranks to write their stacks into their logs; one that is stopped never does."""
QUIET_SECONDS = 0.3
"""A log that stands still for so long, after a rank was asked for its stacks, has them whole."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A target to run in each rank of a group, with what it is given and the bounds of its time."""

    target: str
    """The function, as `package.module:function`, found in the rank's process and called with a Link."""
    given: Message = Done()
    """The dataclass that every rank is given; targets read it with `link.job(kind)`."""
    world_size: int
    """The number of ranks, a process each."""
    env: tuple[Mapping[str, str], ...] = ()
    """Environment variables of each rank, beyond the parent's; empty, or one mapping a rank.
    OMP_NUM_THREADS is a fair share of the cores where neither sets it."""
    rank_names: tuple[str, ...] = ()
    """The ranks' names in reports, such as `decode`; empty, or one a rank."""
    start_seconds: float = 600
    """Seconds for all ranks to start and import their target."""
    command_seconds: float = 1800
    """Seconds for all ranks to answer a command, unless the command says otherwise."""
    stop_seconds: float = 120
    """Seconds for all ranks to end once there are no more commands."""
    preload: tuple[str, ...] = ("torch",)
    """Modules imported once for all groups. They may neither start threads nor use a card when imported."""
    warm_up: str = ""
    """`package.module:function`, called once for all groups before ranks are forked, under the same conditions: what it
    leaves in memory every rank finds there."""

    def __post_init__(self) -> None:
        if self.world_size < 1:
            raise BadInput(f"world_size {self.world_size} is less than 1", "give 1 or more")
        for name in ("env", "rank_names"):
            count = len(getattr(self, name))
            if count not in (0, self.world_size):
                raise BadInput(f"{count} {name} for {self.world_size} ranks", f"give {self.world_size}, or none")


class RankGroup:
    """Running ranks. A context manager: left normally it stops them, by an exception it ends them."""

    def __init__(self, job: Job, folder: Path) -> None:
        """Use `start`."""
        self._job, self._folder = job, folder
        self._ranks: list[Rank] = []
        self._doing = "start"
        self._reports_at_end: list[RankReport | None] = []
        self._oom_kills = count_oom_kills()

    @classmethod
    def start(cls, job: Job, folder: Path) -> Self:
        """Start every rank of `job`. `folder` is this group's own, for logs (`rank0.log`) and the rendezvous.

        GroupError if a rank cannot be started or its target cannot be imported.
        """
        group = cls(job, folder)
        with group._ending_on_error():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "rendezvous").unlink(missing_ok=True)
            deadline = time.monotonic() + job.start_seconds
            group._fork(shared_fork_client(job.preload), deadline)
            if not group._gather(lambda rank: rank.started, deadline):
                raise not_started([rank for rank in group._ranks if not rank.started], job.start_seconds)
        return group

    @property
    def last_reports(self) -> list[RankReport | None]:
        """The last report of each rank, also once the group has ended; None where there was none."""
        return [rank.last_report for rank in self._ranks] or self._reports_at_end

    @property
    def pids(self) -> list[int]:
        """Process id of each rank."""
        return [rank.process.pid for rank in self._ranks]

    def command(
        self, name: str, argument: Message | None = None, *, answer: type[T], seconds: float | None = None
    ) -> list[T]:
        """Send a command to all ranks; their answers in order of rank.

        Args:
            name: of the command.
            argument: what goes with it.
            answer: the dataclass that ranks answer with.
            seconds: deadline for all of them; the job's by default.

        Raises:
            GroupError: a rank failed or did not answer; the group has ended.
            BadData: an answer is no `answer`; the group has ended.
        """
        self._send(name, argument, times=1)
        return self._answers(name, answer, self._job.command_seconds if seconds is None else seconds)

    def commands(self, name: str, times: int, *, answer: type[T]) -> Iterator[list[T]]:
        """Send a command several times at once, and give the answers to each in turn, as `command` does.

        No rank waits with the next one until all others have answered: ranks that work one behind the other go on
        doing so. Each has the job's time from when the one before it was answered.
        """
        self._send(name, None, times)
        for _ in range(times):
            yield self._answers(name, answer, self._job.command_seconds)

    def _send(self, name: str, argument: Message | None, times: int) -> None:
        if not self._ranks:
            raise BadInput(f"command {name!r} for a group that has ended", "start another group")
        self._doing = name
        command = RankCommand(name=name, argument=encoded(argument) if argument is not None else "")
        with self._ending_on_error():
            for rank in self._ranks * times:
                rank.send(command)

    def _answers(self, name: str, answer: type[T], seconds: float) -> list[T]:
        """One answer of each rank, in order."""
        with self._ending_on_error():
            if not self._gather(_has_answered, time.monotonic() + seconds):
                raise self._hang([rank for rank in self._ranks if not rank.replies], seconds)
            return [decoded(answer, rank.replies.popleft(), f"rank {rank.index}, {name!r}") for rank in self._ranks]

    def stop(self) -> None:
        """Let every rank end by itself. GroupError if one fails to; nothing if the group has ended."""
        self._doing = "stop"
        with self._ending_on_error():
            for rank in self._ranks:
                rank.stopping = True
                rank.send(None)
            if not self._gather(lambda rank: rank.process.ended, time.monotonic() + self._job.stop_seconds):
                raise self._hang([rank for rank in self._ranks if not rank.process.ended], self._job.stop_seconds)
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.stop()
        else:
            self._end()

    def _fork(self, server: ForkClient, deadline: float) -> None:
        for index in range(self._job.world_size):
            log = self._folder / f"rank{index}.log"
            name = self._job.rank_names[index] if self._job.rank_names else ""
            try:
                process = server.fork(deadline, self._job.warm_up)
            except ForkError as error:
                failure = RankFailure(kind="infrastructure", rank=index, name=name, message=error.what, error=error)
                raise GroupError([failure]) from error
            self._ranks.append(Rank(index, name, process, log))
            self._ranks[-1].send(self._spec(index, log))

    def _spec(self, index: int, log: Path) -> RankSpec:
        threads = max(1, len(os.sched_getaffinity(0)) // self._job.world_size)
        own = self._job.env[index] if self._job.env else {}
        return RankSpec(
            target=self._job.target,
            job=encoded(self._job.given),
            rank=index,
            world_size=self._job.world_size,
            rendezvous=f"file://{(self._folder / 'rendezvous').resolve()}",
            log=str(log.resolve()),
            directory=str(Path.cwd()),
            environ={"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": str(threads)} | dict(os.environ) | dict(own),
            sys_path=list(sys.path),
        )

    def _gather(self, done: Callable[[Rank], bool], deadline: float) -> bool:
        """Wait until all ranks are done; False if some are not by `deadline`. GroupError if one fails."""
        while True:
            if any(rank.failed for rank in self._ranks):
                raise self._failure(done)
            if all(done(rank) for rank in self._ranks):
                return True
            if time.monotonic() >= deadline:
                return False
            self._pump(deadline)

    def _pump(self, deadline: float) -> None:
        """Wait for news of any rank, until `deadline` at most, and take it."""
        watched = [item for rank in self._ranks for item in rank.waitables()]
        ready = wait(watched, max(0.0, deadline - time.monotonic()))
        for rank in self._ranks:
            rank.read(ready)

    def _failure(self, done: Callable[[Rank], bool]) -> GroupError:
        """The cause, once the other ranks have answered, failed too, or had their time for it."""
        first = time.monotonic()
        while True:
            failed = [rank for rank in self._ranks if rank.failed]
            without_cause = all(map(lost_a_peer, failed))  # a rank that has answered may still have started it
            awaited = [rank for rank in self._ranks if not rank.failed and (without_cause or not done(rank))]
            patience = CAUSE_SECONDS if without_cause else GRACE_SECONDS
            if any(rank.failing for rank in awaited):
                patience = SNAPSHOT_SECONDS
            if not awaited or time.monotonic() >= first + patience:
                break
            self._pump(first + patience)
        silent = [rank for rank in self._ranks if not rank.failed and not done(rank)]
        waited = [rank for rank in failed if waited_in_vain(rank)]
        if silent and waited and without_cause:
            return absent(silent, waited, self._stacks(silent), self._doing)
        oom_killed = (count_oom_kills() or 0) > (self._oom_kills or 0)
        return group_failed(failed, self._doing, oom_killed=oom_killed)

    def _hang(self, silent: list[Rank], seconds: float) -> GroupError:
        """The silent ranks that are to blame, with their stacks."""
        return hung(silent, self._stacks(silent), self._doing, seconds)

    @staticmethod
    def _stacks(silent: list[Rank]) -> dict[int, str]:
        """What each writes when it is asked where it is."""
        before = _sizes(silent)
        for rank in silent:
            rank.process.signal(signal.SIGUSR1)
        _await_stacks(silent, before)
        return {rank.index: read_tail(rank.log, before[rank.index]) for rank in silent}

    @contextmanager
    def _ending_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        """End every rank, however it resists, and forget them. Once begun, Ctrl-C waits for it."""
        with interrupts_held():
            for number, patience in ((signal.SIGTERM, TERMINATE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
                for rank in self._ranks:
                    rank.process.signal(number)
                self._await_end(time.monotonic() + patience)
            for process in (rank.process for rank in self._ranks):
                if process.exit_status is None:
                    process.await_hangup(time.monotonic() + KILL_SECONDS)
                process.connection.close()
            self._reports_at_end, self._ranks = self.last_reports, []

    def _await_end(self, deadline: float) -> None:
        while (running := [rank.process for rank in self._ranks if not rank.process.ended]) and (
            time.monotonic() < deadline
        ):
            ready = wait([process.status for process in running], max(0.0, deadline - time.monotonic()))
            for process in running:
                if process.status in ready:
                    process.read_status()


def _has_answered(rank: Rank) -> bool:
    return bool(rank.replies)


def _sizes(ranks: list[Rank]) -> dict[int, int]:
    return {rank.index: rank.log.stat().st_size for rank in ranks}


def _await_stacks(ranks: list[Rank], before: dict[int, int]) -> None:
    """Wait until every log has grown from its size `before` and none grows any more."""
    deadline, seen = time.monotonic() + STACKS_SECONDS, before
    while time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS)
        sizes = _sizes(ranks)
        if sizes == seen and all(sizes[index] > size for index, size in before.items()):
            return
        seen = sizes
