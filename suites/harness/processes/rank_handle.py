"""What the parent knows of one rank. Free of torch."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from pathlib import Path
from typing import Any

from suites.harness.messages import RankReport
from suites.harness.processes.child_link import RankSpec
from suites.harness.processes.fork_client import RankProcess
from suites.harness.processes.link import ErrorReport, RankCommand, decoded


class Rank:
    """The parent's view of one rank: its process, its log, its last words."""

    def __init__(self, index: int, name: str, process: RankProcess, log: Path) -> None:
        """`log`: file with the rank's output."""
        self.index, self.name, self.process, self.log = index, name, process, log
        self.connected, self.started = True, False
        self.replies: deque[str] = deque()
        """Answers that nobody has taken yet, as they came."""
        self.error: ErrorReport | None = None
        self.last_report: RankReport | None = None
        self.last_report_at = time.monotonic()
        self.failed_at: float | None = None
        self.failing = False
        """Whether it told that it fails, and has not yet ended or said why."""
        self.stopping = False

    @property
    def failed(self) -> bool:
        """Whether it reported an error, or ended when it was not asked to."""
        return self.failed_at is not None

    def waitables(self) -> list[Any]:
        """All that becomes ready when there is news of this rank."""
        channel = [self.process.connection] if self.connected else []
        return channel + ([] if self.process.ended else [self.process.status])

    def read(self, ready: list[Any]) -> None:
        """Take the news: messages first, so that a rank's own words count more than its end."""
        ended = self.process.status in ready and not self.process.ended
        if self.connected and (ended or self.process.connection in ready):
            self._read_messages()
        if ended:
            self.process.read_status()
        if self.error or (self.process.ended and not (self.stopping and self.process.exit_status == 0)):
            self.failed_at, self.failing = self.failed_at or time.monotonic(), False

    def _read_messages(self) -> None:
        try:
            while self.process.connection.poll():
                self._take(*self.process.connection.recv())
        except (EOFError, OSError):
            self.connected = False

    def _take(self, kind: str, text: str) -> None:
        where = f"{kind} of rank {self.index}"
        if kind == "started":
            self.started = True
        elif kind == "failing":
            self.failing = True
        elif kind == "reply":
            self.replies.append(text)
        elif kind == "report":
            self.last_report, self.last_report_at = decoded(RankReport, text, where), time.monotonic()
        else:
            self.error = decoded(ErrorReport, text, where)

    def send(self, message: RankSpec | RankCommand | None) -> None:
        """Give the spec or a command. A rank that is gone is noticed when its answer is awaited."""
        self.last_report_at = time.monotonic()
        with contextlib.suppress(OSError):
            self.process.connection.send(message)
