"""Tests that take minutes run when they are asked for: `pytest -m nightly`."""

from __future__ import annotations

from pathlib import Path

import pytest

OURS = Path(__file__).parents[3]
"""The clone, or the folder that the suite is installed in: markers of other projects mean what they say."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "nightly: takes minutes; runs when asked for with -m nightly")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip them where nobody asked."""
    if "nightly" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("nightly") and item.path.is_relative_to(OURS):
                item.add_marker(pytest.mark.skip(reason="takes minutes: pytest -m nightly"))
