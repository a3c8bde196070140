"""One 48 GB card holds the published layout's weights and no cache; in float8 it holds everything."""

import pytest

from suites.harness.pytest_plugin.tier_runner import TierRunner

pytestmark = pytest.mark.gpu1x48


def test_as_published_the_caches_do_not_fit(tier: TierRunner) -> None:
    """The published layout runs out of memory: it is what the remedy below remedies."""
    tier.check("single")


def test_float8_weights_and_caches_fit(tier: TierRunner) -> None:
    """Weights and caches fit in half the bytes."""
    tier.check("fp8")
