"""Without tiers of a lab there is nothing to collect in test_added_tiers.py."""

from pathlib import Path

import pytest

from suites.harness.pytest_plugin.plugin import SESSION


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the file out if no tier was added."""
    if collection_path.name != "test_added_tiers.py":
        return None
    return None if any(tier.added for tier in config.stash[SESSION].tiers.values()) else True
