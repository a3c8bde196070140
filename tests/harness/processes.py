"""Counting processes exactly, from /proc, and a clock that waits for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from waiting import wait_until

_HERE = Path(__file__).parent
IMPORT_PATH = os.pathsep.join(map(str, (_HERE.parents[1], _HERE.parent / "support", _HERE)))
"""For processes that import what tests do."""


def session_of(pid: int) -> list[int]:
    """Every process of a session, zombies left out: a fork server and all that came from it."""
    return list(states_of(pid))


def states_of(session: int) -> dict[int, str]:
    """By process of a session, zombies left out, what its main thread does: R runs, S sleeps, T is stopped, ..."""
    members = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, found = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(found) == session and state not in "ZX":
            members[int(stat.parent.name)] = state
    return members


def await_count(session: int, *, at_least: int = 0, at_most: int = 1000) -> None:
    """Wait until a session has so many processes."""
    wait_until(lambda: at_least <= len(session_of(session)) <= at_most, lambda: session_of(session))


def at_rest(session: int, folder: Path, note: str, ranks: int) -> bool:
    """Whether so many ranks have left a note in their group's folder, and no process of the session runs any more."""
    return len(list(folder.glob(f"rank*.{note}"))) == ranks and set(states_of(session).values()) <= {"S", "T"}


def hold_the_clock(monkeypatch: pytest.MonkeyPatch, ready: Callable[[], bool], *, leap: float = 0.0) -> None:
    """Time stands still for the deadlines of ranks until `ready`: how long they take to get there ends nothing.

    leap: seconds by which it goes on at once then; what ranks wait for each other stays as long as it was.
    """
    begun, stood_still = time.monotonic(), []

    def monotonic() -> float:
        if not stood_still and ready():
            stood_still.append(time.monotonic() - begun)
        return time.monotonic() - stood_still[0] + leap if stood_still else begun

    monkeypatch.setattr(
        "suites.harness.processes.rank_group.time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep)
    )
