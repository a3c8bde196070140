"""Cards lent to one run at a time, across processes: a file lock for each card, by UUID, taken under one lock.

Whoever wants cards takes the allocator's lock, then the locks of the first free cards in the order of their UUIDs;
where too few are free it lets go of everything and tries again, so that nobody holds some while waiting for others.
Locks end with their process. A card that runs something else is refused; nothing is ever killed. Free of torch.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from filelock import FileLock, Timeout

from liveavatar_core.errors import GIB, LiveAvatarError
from liveavatar_core.hardware.nvml import CardProcess, CardState

LOCKS = Path(tempfile.gettempdir()) / "liveavatar-cards"
RETRY_SECONDS = 0.2
WAIT_SECONDS = 3600.0
"""Seconds that other tests have to give cards back; a test of the full size takes minutes."""
RANK_COMMAND = b"suites.harness.processes.fork_server"


class CardsUnavailable(LiveAvatarError):
    """Cards are busy with something else, or were not given back in time."""


@contextmanager
def leased(
    cards: Sequence[CardState],
    count: int,
    *,
    read: Callable[[], Sequence[CardState]],
    folder: Path = LOCKS,
    wait_seconds: float = WAIT_SECONDS,
) -> Iterator[tuple[CardState, ...]]:
    """Hold `count` of `cards` while inside.

    read: the cards as they are now, asked once the locks are held. folder: where the locks are.

    Raises:
        CardsUnavailable: a card runs a process that is nobody's here, or others held too many for too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        uuids = _take(sorted(card.uuid for card in cards), count, folder, held, wait_seconds)
        mine = tuple(card for card in read() if card.uuid in uuids)
        for card in mine:
            _check_idle(card)
        yield mine


def _take(uuids: list[str], count: int, folder: Path, held: ExitStack, wait_seconds: float) -> list[str]:
    deadline = time.monotonic() + wait_seconds
    while True:
        with FileLock(folder / "allocator.lock"), ExitStack() as attempt:
            free = (uuid for uuid in uuids if _lock(folder / f"{uuid}.lock", attempt))
            taken = list(islice(free, count))  # no further than that: a lock that was tried is held
            if len(taken) == count:
                held.enter_context(attempt.pop_all())
                return taken
        if time.monotonic() >= deadline:
            raise CardsUnavailable(
                f"{count} cards are needed; other runs held {len(uuids) - len(taken)} of {len(uuids)} for"
                f" {wait_seconds:g} s",
                f"see who has {folder}/*.lock open (fuser -v), or run fewer tests at a time",
            )
        time.sleep(RETRY_SECONDS)


def _lock(path: Path, attempt: ExitStack) -> bool:
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return False
    attempt.callback(lock.release)
    return True


def _check_idle(card: CardState) -> None:
    """Refuse a card that computes for somebody else."""
    if card.processes:
        names = "; ".join(describe(process) for process in card.processes)
        pids = " ".join(str(process.pid) for process in card.processes)
        where = f"card {card.index} ({card.name}, {card.uuid})"
        raise CardsUnavailable(f"{where} is busy: {names}", f"wait, or look at them (ps -fp {pids}) and end them")


def describe(process: CardProcess, proc: Path = Path("/proc")) -> str:
    """Who it is, what it holds, and whether an earlier run of the suite left it behind."""
    held = "" if process.used_bytes is None else f" holds {process.used_bytes / GIB:.2f} GiB"
    orphan = ", left behind by an earlier run of this suite" if _is_orphan(process.pid, proc) else ""
    return f"process {process.pid} ({process.name or 'no name'}){held}{orphan}"


def _is_orphan(pid: int, proc: Path) -> bool:
    """Whether it is a rank of this suite whose server, the leader of its session, is gone."""
    try:
        command = (proc / str(pid) / "cmdline").read_bytes()
        session = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[3]
    except (OSError, IndexError):
        return False
    return RANK_COMMAND in command and not (proc / session).exists() and pid != os.getpid()
