"""On what a run stands: physical, partitioned, simulated, miniature; a module each, loaded when asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol

from liveavatar_core.errors import BadInput
from suites.harness.cases.tiers import Case, Tier
from suites.harness.pytest_plugin.clip_clock import ClipClock, untimed
from suites.harness.records.record import HARDWARE_MODES, RunRecord


class HardwareMode(Protocol):
    """A way to run a tier's case. Each module here has one: PhysicalMode in physical, made without arguments."""

    name: str
    """One of HARDWARE_MODES."""

    def why_not(self, tier: Tier) -> str | None:
        """Why `tier` cannot run in this mode on this machine; None if it can. Cheap, and takes nothing."""

    def unsupported(self, tier: Tier, case: Case) -> str | None:
        """Why the cards cannot compute `case` though they are there, and the next step, in two lines; None if they can.

        Asked once `why_not` has nothing against the tier.
        """

    def run(self, tier: Tier, case: Case, folder: Path, clock: ClipClock = untimed) -> RunRecord:
        """Run `case` on `tier`; logs and videos go to `folder`, which is there and empty.

        clock: runs and times the clips, where clips really run.

        Failures of the run are outcomes of the record, never exceptions.
        """


def mode_named(name: str) -> HardwareMode:
    """The hardware mode of that name.

    Raises:
        BadInput: there is no such mode.
    """
    if name not in HARDWARE_MODES:
        raise BadInput(f"no hardware mode {name!r}", f"give --hardware={'|'.join(('auto', *HARDWARE_MODES))}")
    return getattr(import_module(f"{__name__}.{name}"), f"{name.capitalize()}Mode")()
