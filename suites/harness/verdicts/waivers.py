"""Known failures that people agreed to live with for a while: baselines/waivers.toml."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from liveavatar_core import strict
from suites.harness.records.machine_identity import machine_identity, machine_profile_name
from suites.harness.records.record import Outcome, RunRecord

LONGEST = timedelta(days=90)
"""How long a waiver may hold; renewing it is a change that somebody reviews."""
WaivedVerdict = Literal["regressed", "over-limit", "recipe-changed", "outcome-changed"]
"""What may be excused. A metric that is missing or NaN, and trouble of the machine, are never a pass."""


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """One excuse, of one kind of failure. It holds from its first day through its last."""

    case: str
    """As tier/case."""
    machine: str
    """Name of the machine profile: a folder of baselines/."""
    verdict: WaivedVerdict
    """The one kind of failure that it excuses."""
    outcome: Outcome | None = None
    """With outcome-changed: how the run may end. A waiver for `oom` excuses no crash and no hang."""
    reason: str
    link: str
    """Where it is being worked on."""
    since: date
    """First day."""
    expires: date
    """Last day; within 90 days."""

    def __post_init__(self) -> None:
        for name in ("case", "machine", "reason", "link"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty")
        if not timedelta() <= self.expires - self.since <= LONGEST:
            raise ValueError(f"{self.since} to {self.expires}: a waiver ends within {LONGEST.days} days of its first")
        if (self.verdict == "outcome-changed") != (self.outcome is not None):
            raise ValueError("outcome belongs to verdict outcome-changed, and to it alone")


@dataclass(frozen=True, kw_only=True)
class _WaiverFile:
    waiver: tuple[Waiver, ...] = ()


def read_waivers(path: Path) -> tuple[Waiver, ...]:
    """The waivers of a file; none if there is no file. Raises BadData naming file and key."""
    if not path.exists():
        return ()
    return strict.build(_WaiverFile, strict.read_toml(path), str(path)).waiver


def excuses(waiver: Waiver, record: RunRecord, verdict: str) -> bool:
    """Whether the waiver holds on the day of `record`, for it, and for a failure of that verdict."""
    if not (applies(waiver, record) and waiver.since <= record.date <= waiver.expires):
        return False
    return waiver.verdict == verdict and waiver.outcome in (None, record.outcome)


def applies(waiver: Waiver, record: RunRecord) -> bool:
    """Whether the waiver is about this case on exactly this machine, expired or not."""
    machine = machine_profile_name(machine_identity(record))
    return waiver.case == f"{record.tier}/{record.case}" and waiver.machine == machine
