"""One 80 GB card runs Live Avatar alone."""

import pytest

from suites.harness.pytest_plugin.tier_runner import TierRunner

pytestmark = pytest.mark.gpu1x80


def test_single_fits(tier: TierRunner) -> None:
    """Four KV caches, one a noise level, are why it takes 80 GB."""
    tier.check("single")
