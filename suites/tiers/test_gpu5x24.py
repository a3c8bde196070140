"""Five 24 GB cards: one of two published layouts fits, hence the contradicting reports."""

import pytest

from suites.harness.pytest_plugin.tier_runner import TierRunner

pytestmark = pytest.mark.gpu5x24


def test_published_sharded_fits(tier: TierRunner) -> None:
    """A fifth card takes enough of every shard that gathering fits."""
    tier.check("published_sharded")


def test_published_replicated_runs_out_of_memory_in_the_unshard(tier: TierRunner) -> None:
    """A fifth card shrinks the shard, not the whole encoders: the root unit still does not fit."""
    tier.check("published_replicated")
