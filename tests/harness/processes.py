"""Counting processes exactly, from /proc."""

from __future__ import annotations

import time
from pathlib import Path


def session_of(pid: int) -> list[int]:
    """Every process of a session, zombies left out: a fork server and all that came from it."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == pid and state not in "ZX":
            members.append(int(stat.parent.name))
    return members


def await_count(session: int, *, at_least: int = 0, at_most: int = 1000, seconds: float = 8) -> None:
    """Fail unless a session comes to have so many processes in time."""
    deadline = time.monotonic() + seconds
    while not at_least <= len(members := session_of(session)) <= at_most:
        assert time.monotonic() < deadline, f"{len(members)} processes: {members}"
        time.sleep(0.02)
