"""One session at a time in a report folder: two would delete each other's runs, and read each other's records."""

from __future__ import annotations

import fcntl
import os
import uuid
from functools import cache
from pathlib import Path
from typing import IO

from liveavatar_core.errors import BadInput

CLAIM = ".session"
"""The file that says whose the folder is. It stays: what counts is who holds it open."""


@cache
def claim_report(folder: Path, session: str) -> IO[str]:
    """Hold `folder` for all processes of `session` until this one ends. Asked again it answers at once.

    Raises:
        BadInput: another session holds it.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / CLAIM).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(session)
        file.flush()
    except BlockingIOError:
        pass  # somebody is here: of this session, perhaps
    fcntl.flock(file, fcntl.LOCK_SH)
    file.seek(0)
    if file.read() != session:
        file.close()
        raise BadInput(f"another session writes to {folder}", "wait for its end, or give --report-dir another folder")
    return file


@cache
def own_session() -> str:
    """The name of this process's session; workers of pytest-xdist share one."""
    return os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
