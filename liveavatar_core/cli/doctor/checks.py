"""What an examination finds: a tree of groups with leaves, each leaf with a next step where one is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from liveavatar_core.errors import LiveAvatarError

Status = Literal["good", "skipped", "limited", "bad"]
ORDER: tuple[Status, ...] = ("good", "skipped", "limited", "bad")
"""From harmless to grave."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """A leaf."""

    name: str
    """What was looked at."""
    status: Status
    """`limited`: works, with a restriction; `skipped`: could not be looked at here."""
    found: str
    """What was measured against what is allowed, or why nothing was."""
    next_step: str = ""
    """What to do; given where the status is limited or bad."""

    def __post_init__(self) -> None:
        if (self.status in ("limited", "bad")) != bool(self.next_step):
            raise ValueError(f"{self.name}: status {self.status} with next step {self.next_step!r}")


@dataclass(frozen=True, kw_only=True)
class CheckGroup:
    """What belongs together."""

    name: str
    results: tuple[CheckResult, ...]

    @property
    def status(self) -> Status:
        """The worst of its leaves; skipped only where all are."""
        statuses = [result.status for result in self.results]
        seen = [status for status in statuses if status != "skipped"] or statuses
        return max(seen, key=ORDER.index)


def good(name: str, found: str) -> CheckResult:
    """Nothing to do."""
    return CheckResult(name=name, status="good", found=found)


def skipped(name: str, why: str) -> CheckResult:
    """Could not be looked at."""
    return CheckResult(name=name, status="skipped", found=why)


def limited(name: str, found: str, next_step: str) -> CheckResult:
    """Works, with a restriction."""
    return CheckResult(name=name, status="limited", found=found, next_step=next_step)


def bad(name: str, found: str, next_step: str) -> CheckResult:
    """Does not work, or not as the published numbers assume."""
    return CheckResult(name=name, status="bad", found=found, next_step=next_step)


def refused(name: str, look: Callable[[], CheckResult]) -> CheckResult:
    """What `look` finds; where it raises one of this project's errors, that is the result."""
    try:
        return look()
    except LiveAvatarError as error:
        return bad(name, error.what, error.next_step)
