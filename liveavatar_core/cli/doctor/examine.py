"""The whole examination, and how its tree is written down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liveavatar_core.cli.doctor.checkpoint import weights_branch
from liveavatar_core.cli.doctor.checks import ORDER, Branch, Finding, Status
from liveavatar_core.cli.doctor.driver import TorchBuild, card_branches, driver_branch
from liveavatar_core.cli.doctor.host import host_branch
from liveavatar_core.cli.doctor.inputs import inputs_branch
from liveavatar_core.cli.doctor.links import link_branch
from liveavatar_core.hardware.nvml import DriverReading

SIGNS: dict[Status, str] = {"good": "ok", "skipped": "skipped", "limited": "LIMITED", "bad": "BAD"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is to be examined beside the machine. None: not given."""

    image: Path | None = None
    audio: Path | None = None
    ckpt_dir: Path | None = None
    lora: Path | None = None
    every_weight: bool = False
    """Read the values of every weight, which takes minutes."""


def examine(subject: Subject, driver: DriverReading, torch: TorchBuild) -> list[Branch]:
    """Every branch, in the order in which faults are looked for."""
    weights = weights_branch(subject.ckpt_dir, subject.lora, values=subject.every_weight)
    there = weights.findings[0].status == "good"
    return [
        driver_branch(driver, torch),
        *card_branches(driver),
        link_branch(driver),
        host_branch(subject.ckpt_dir or Path.cwd(), checkpoint_is_there=there),
        weights,
        inputs_branch(subject.image, subject.audio),
    ]


def gravest(branches: Sequence[Branch]) -> Status:
    """Of all branches."""
    return max((branch.status for branch in branches), key=ORDER.index)


def as_data(branches: Sequence[Branch]) -> dict[str, Any]:
    """For --json."""
    return {
        "status": gravest(branches),
        "branches": [{"status": branch.status, **asdict(branch)} for branch in branches],
    }


def leaves_to_show(branch: Branch) -> Iterator[Finding]:
    """A branch without a fault is closed; what was skipped is said in any case."""
    is_open = branch.status in ("limited", "bad")
    yield from (finding for finding in branch.findings if is_open or finding.status == "skipped")


def text_of(finding: Finding) -> str:
    """A leaf in a line."""
    return f"{finding.name}: {finding.found}"


def summary(branches: Sequence[Branch]) -> str:
    """The last line."""
    leaves = [finding for branch in branches for finding in branch.findings]
    counts = [f"{sum(leaf.status == status for leaf in leaves)} {SIGNS[status].lower()}" for status in ORDER]
    return ", ".join(counts)
