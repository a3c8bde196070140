"""Known failures that people agreed to live with for a while: baselines/waivers.toml."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from liveavatar_core import strict
from suites.harness.records.machine_identity import machine_identity, machine_profile_name
from suites.harness.records.record import RunRecord


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """One excuse. It holds through the day it expires."""

    case: str
    """As tier/case."""
    machine: str
    """Name of the machine profile: a folder of baselines/."""
    reason: str
    link: str
    """Where it is being worked on."""
    expires: date

    def __post_init__(self) -> None:
        for name in ("case", "machine", "reason", "link"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty")


@dataclass(frozen=True, kw_only=True)
class _WaiverFile:
    waiver: tuple[Waiver, ...] = ()


def read_waivers(path: Path) -> tuple[Waiver, ...]:
    """The waivers of a file; none if there is no file. Raises BadData naming file and key."""
    if not path.exists():
        return ()
    return strict.build(_WaiverFile, strict.read_toml(path), str(path)).waiver


def applies(waiver: Waiver, record: RunRecord) -> bool:
    """Whether the waiver is about this case on exactly this machine, expired or not."""
    machine = machine_profile_name(machine_identity(record))
    return waiver.case == f"{record.tier}/{record.case}" and waiver.machine == machine
