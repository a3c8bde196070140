"""Is this machine fit to be measured? A test a group of the fault tree of `python -m liveavatar_core doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from liveavatar_core.shipped_files import ASSETS

if TYPE_CHECKING:
    from liveavatar_core.cli.doctor.checks import CheckGroup


@pytest.fixture(scope="session")
def groups() -> list[CheckGroup]:
    """The examination, once a session."""
    from liveavatar_core.cli.doctor.driver import read_torch
    from liveavatar_core.cli.doctor.examine import Subject, examine
    from liveavatar_core.hardware.nvml import read_driver

    subject = Subject(image=ASSETS / "portrait.png", audio=ASSETS / "voice.wav")
    return examine(subject, read_driver(), read_torch())


@pytest.mark.parametrize("name", ["driver", "card", "between cards", "host", "inputs"])
def test_has_no_fault(name: str, groups: list[CheckGroup]) -> None:
    """Fails with each fault and its next step; skipped where there is nothing to look at."""
    leaves = [leaf for group in groups if group.name.startswith(name) for leaf in group.results]
    faults = [f"{leaf.name}: {leaf.found}\nnext: {leaf.next_step}" for leaf in leaves if leaf.status == "bad"]
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)
    if all(leaf.status == "skipped" for leaf in leaves):
        pytest.skip("; ".join(f"{leaf.name}: {leaf.found}" for leaf in leaves))
