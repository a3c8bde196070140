"""Videos are compared in the miniature mode, whatever cards there are: it is what makes a reference."""

from __future__ import annotations

import pytest

from suites.harness.pytest_plugin.options import AUTO
from suites.harness.pytest_plugin.plugin import SESSION
from suites.harness.pytest_plugin.tier_runner import TierRunner


@pytest.fixture
def miniature(request: pytest.FixtureRequest) -> TierRunner:
    """The tier that the test's marker names, in the miniature mode."""
    session = request.config.stash[SESSION]
    if not {AUTO, "miniature"}.intersection(session.settings.hardware):
        pytest.skip("videos are compared in the miniature mode: --hardware=miniature")
    names = [mark.name for mark in request.node.iter_markers() if mark.name in session.tiers]
    assert len(names) == 1, f"marked with tiers {names}, not one"
    return TierRunner(session.tiers[names[0]], "miniature", session.settings, request, session.tell)
