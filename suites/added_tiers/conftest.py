"""Without tiers of a lab there is nothing to collect here."""

import pytest

from suites.harness.plugin import SESSION


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave the folder out if no tier was added."""
    return None if any(tier.added for tier in config.stash[SESSION].tiers.values()) else True
