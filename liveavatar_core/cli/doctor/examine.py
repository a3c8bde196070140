"""The whole examination, and how its tree is written down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liveavatar_core.cli.doctor.checkpoint import weights_branch
from liveavatar_core.cli.doctor.checks import ORDER, CheckGroup, CheckResult, Status
from liveavatar_core.cli.doctor.driver import TorchBuild, card_branches, driver_branch
from liveavatar_core.cli.doctor.host import host_branch
from liveavatar_core.cli.doctor.inputs import inputs_branch
from liveavatar_core.cli.doctor.links import link_branch
from liveavatar_core.cli.doctor.overheads import overheads_branch
from liveavatar_core.hardware.nvml import DriverState

SIGNS: dict[Status, str] = {"good": "ok", "skipped": "skipped", "limited": "LIMITED", "bad": "BAD"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is to be examined beside the machine. None: not given."""

    image: Path | None = None
    audio: Path | None = None
    ckpt_dir: Path | None = None
    lora: Path | None = None
    overheads: Path | None = None
    """Takes what the first card was measured to lack."""
    every_weight: bool = False
    """Read the values of every weight, which takes minutes."""


def examine(subject: Subject, driver: DriverState, torch: TorchBuild) -> list[CheckGroup]:
    """Every group, in the order in which faults are looked for."""
    weights = weights_branch(subject.ckpt_dir, subject.lora, values=subject.every_weight)
    there = weights.results[0].status == "good"
    return [
        driver_branch(driver, torch),
        *card_branches(driver),
        overheads_branch(driver, torch, subject.overheads),
        link_branch(driver),
        host_branch(subject.ckpt_dir or Path.cwd(), checkpoint_is_there=there),
        weights,
        inputs_branch(subject.image, subject.audio),
    ]


def worst(groups: Sequence[CheckGroup]) -> Status:
    """The worst status of all groups."""
    return max((group.status for group in groups), key=ORDER.index)


def as_data(groups: Sequence[CheckGroup]) -> dict[str, Any]:
    """All checks by group, with the worst status of each, as `doctor --json` prints them."""
    return {
        "status": worst(groups),
        "groups": [{"status": group.status, **asdict(group)} for group in groups],
    }


def leaves_to_show(group: CheckGroup) -> Iterator[CheckResult]:
    """A group without a fault is closed; what was skipped is said in any case."""
    is_open = group.status in ("limited", "bad")
    yield from (result for result in group.results if is_open or result.status == "skipped")


def text_of(result: CheckResult) -> str:
    """A leaf in a line."""
    return f"{result.name}: {result.found}"


def summary(groups: Sequence[CheckGroup]) -> str:
    """The last line."""
    leaves = [result for group in groups for result in group.results]
    counts = [f"{sum(leaf.status == status for leaf in leaves)} {SIGNS[status].lower()}" for status in ORDER]
    return ", ".join(counts)
