"""How much is tried. Free of hypothesis, so that its options can be read without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A budget for each rule."""

    seconds: float
    """After so many no further case is begun, once there have been `least`."""
    least: int
    """Cases, however slow the machine is."""
    most: int
    """Cases, however quick it is; a hundred times as many of a rule that runs nothing."""
    shrink_seconds: float
    """For making a failure smaller."""
    random: bool
    """False: the same cases each time, so that a change is to blame for a failure."""


PROFILES = {
    "dev": Profile(seconds=5, least=2, most=20, shrink_seconds=30, random=True),
    "ci": Profile(seconds=10, least=3, most=60, shrink_seconds=60, random=False),
    "nightly": Profile(seconds=1200, least=50, most=2000, shrink_seconds=600, random=True),
}
"""By name."""
