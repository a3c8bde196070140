"""Why a group of ranks failed: which rank is to blame, and what kind of failure it is. Free of torch."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from liveavatar_core.errors import CannotWrite, InvalidRecipe, LiveAvatarError, OutOfMemory
from suites.harness.processes.link import ErrorReport
from suites.harness.processes.rank_handle import Rank

Kind = Literal["crash", "hang", "oom", "host-oom", "unsupported", "infrastructure"]

TAIL = 8192
"""Bytes of a log that are read back."""
VMSTAT = Path("/proc/vmstat")
LOST_PEER = re.compile(
    r"connection (closed|reset|refused)|closed by peer|broken pipe|remote process exited|ncclRemoteError"
    r"|timed out waiting|wait timeout|socket timeout",
    re.IGNORECASE,
)
"""How gloo, NCCL and torch's stores say that another rank is gone."""
WAITED_IN_VAIN = re.compile(
    r"timed out waiting|wait timeout|Watchdog caught collective operation timeout|milliseconds before timing out",
    re.IGNORECASE,
)
"""How gloo and torch's watchdog over NCCL say that a rank never came to where this one waited for it."""
LONG_TAIL = 65_536
"""TAIL of the log of a rank that the watchdog ended: stacks follow on what it says."""
COLLECTIVE = "torch/distributed/"
INNER_FRAMES = 3
"""Whoever waits in a collective has torch.distributed among the innermost frames. Further out, FSDP's forward
is there at any moment."""


@dataclass(frozen=True, kw_only=True)
class RankFailure:
    """How one rank failed."""

    kind: Kind
    """The kind of failure; only `oom` is one that a tier may expect."""
    rank: int
    """The rank's number."""
    name: str = ""
    """The rank's name in reports; empty if it has none."""
    phase: str = ""
    """The phase that it last told of; empty if it told of none."""
    message: str
    """The failure in one or two lines."""
    detail: str = ""
    """The end of its log, with the traceback if there is one."""
    error: LiveAvatarError | None = None
    """The core's error itself, with its numbers, if that is what ended the rank."""

    def __str__(self) -> str:
        name = f" ({self.name})" if self.name else ""
        phase = f", {self.phase}" if self.phase else ""
        return f"{self.kind}: rank {self.rank}{name}{phase}: {self.message}"


class GroupError(LiveAvatarError):
    """A group ended because a rank failed. `failures`: every rank that is to blame, the leading one first."""

    def __init__(self, failures: Iterable[RankFailure], next_step: str = "") -> None:
        """`next_step`: what to do, where the leading failure's own error does not say."""
        self.failures = tuple(failures)
        others = "".join(f"\nalso {failure}" for failure in self.failures[1:])
        error = self.lead.error
        super().__init__(f"{self.lead}{others}", error.next_step if error else next_step or "read the detail")

    @property
    def lead(self) -> RankFailure:
        """The failure that the outcome is named after."""
        return self.failures[0]

    def __reduce__(self) -> tuple:
        """Crosses process borders whole."""
        return GroupError, (self.failures, self.next_step)


def count_oom_kills(vmstat: Path = VMSTAT) -> int | None:
    """Processes that the kernel has killed for memory since it started; None where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", vmstat.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def group_failed(failed: list[Rank], doing: str, *, oom_killed: bool) -> GroupError:
    """The cause among ranks that failed while they did `doing`.

    Ranks that only lost a peer are left out if there are others. Errors of the core lead, by rank; then what
    came first. `oom_killed`: the kernel killed for memory meanwhile.
    """
    causes = [rank for rank in failed if not lost_a_peer(rank)] or failed
    typed = [rank for rank in causes if rank.error and rank.error.typed]
    others = sorted((rank for rank in causes if rank not in typed), key=lambda rank: rank.failed_at or 0.0)
    ordered = typed + others
    return GroupError([_explain(rank, doing, oom_killed) for rank in ordered], f"read {ordered[0].log}")


def lost_a_peer(rank: Rank) -> bool:
    """Whether its error only says that another rank is gone, or does not come."""
    error = rank.error
    return bool(error and not error.typed and LOST_PEER.search(error.message)) or waited_in_vain(rank)


def waited_in_vain(rank: Rank) -> bool:
    """Whether it gave up waiting for another rank, or torch's watchdog ended it as NCCL did so."""
    if rank.error is not None:
        return not rank.error.typed and bool(WAITED_IN_VAIN.search(rank.error.message))
    return rank.process.ended and bool(WAITED_IN_VAIN.search(read_tail(rank.log, size=LONG_TAIL)))


def only_lost_a_peer(failure: RankFailure) -> bool:
    """Whether a failure that is explained already only says that another rank is gone."""
    return failure.kind == "crash" and bool(LOST_PEER.search(failure.message))


def _explain(rank: Rank, doing: str, oom_killed: bool) -> RankFailure:
    if rank.error:
        kind, message = kind_of(rank.error), message_of(rank.error)
    else:
        kind, message = _how_it_ended(rank.process.exit_status, doing, oom_killed)
    return _failure(rank, kind, message, rank.error.typed if rank.error else None)


def _failure(rank: Rank, kind: Kind, message: str, error: LiveAvatarError | None = None) -> RankFailure:
    return RankFailure(
        kind=kind,
        rank=rank.index,
        name=rank.name,
        phase=(rank.last_report.phase if rank.last_report else None) or "",
        message=message,
        detail=read_tail(rank.log),
        error=error,
    )


def kind_of(error: ErrorReport) -> Kind:
    """The kind of failure that an error stands for, as a rank told of it."""
    if isinstance(error.typed, OutOfMemory):
        return "oom"
    if isinstance(error.typed, InvalidRecipe):
        return "unsupported"
    if isinstance(error.typed, CannotWrite):
        return "infrastructure"
    return "host-oom" if error.type_name == "MemoryError" else "crash"


def message_of(error: ErrorReport) -> str:
    """The error in one line, with the name of its class where it is none of the core's."""
    return error.message if error.of_core else f"{error.type_name}: {error.message}"


def _how_it_ended(status: int | None, doing: str, oom_killed: bool) -> tuple[Kind, str]:
    if status is None:
        return "infrastructure", f"the process it was forked from died during {doing!r}"
    if status >= 0:
        return "crash", f"ended with exit status {status} without answering {doing!r}"
    if -status == signal.SIGKILL and oom_killed:
        return (
            "host-oom",
            f"killed during {doing!r}, and the kernel reports that it killed for want of host memory",
        )
    return "crash", f"killed by {signal.Signals(-status).name} during {doing!r}"


def not_started(ranks: list[Rank], seconds: float) -> GroupError:
    """The error of ranks that had not found their target in time."""
    message = f"had not started after {seconds:g} s"
    return GroupError(
        [_failure(rank, "infrastructure", message) for rank in ranks],
        f"read {ranks[0].log}, or allow more start_seconds",
    )


def hung(silent: list[Rank], stacks: dict[int, str], doing: str, seconds: float) -> GroupError:
    """The ranks to blame among those that did not answer: not those that wait in a collective for others.

    If all do, the one that has told nothing for the longest time. `stacks`: what each wrote when asked.
    """
    stuck = [rank for rank in silent if not _waits_in_collective(stacks[rank.index])]
    blamed = sorted(stuck or silent, key=lambda rank: rank.last_report_at)[: None if stuck else 1]
    message = f"did not answer {doing!r} within {seconds:g} s"
    return GroupError([_failure(rank, "hang", message) for rank in blamed], f"see its stack in {blamed[0].log}")


def absent(silent: list[Rank], waited: list[Rank], stacks: dict[int, str], doing: str) -> GroupError:
    """The silent ranks for which others `waited` in vain; those that still wait themselves are not to blame."""
    stuck = [rank for rank in silent if not _waits_in_collective(stacks[rank.index])] or silent
    names = " and ".join(f"rank {rank.index}" for rank in waited)
    message = f"did not come to a collective of {doing!r} in which {names} waited until the group's time-out"
    return GroupError([_failure(rank, "hang", message) for rank in stuck], f"see its stack in {stuck[0].log}")


def _waits_in_collective(stacks: str) -> bool:
    """Whether the main thread, the last in faulthandler's dump, is inside torch.distributed."""
    main_thread = re.split(r"^(?:Current thread|Thread) .*$", stacks, flags=re.MULTILINE)[-1]
    return any(COLLECTIVE in line for line in main_thread.strip().splitlines()[:INNER_FRAMES])


def read_tail(log: Path, start: int = 0, size: int = TAIL) -> str:
    """The last `size` bytes of a log, or what follows `start` if that is less; empty if there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
