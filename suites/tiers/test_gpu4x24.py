"""Four 24 GB cards do not run Live Avatar as it was published, and this is where they stop."""

import pytest

from suites.harness.pytest_plugin.tier_runner import TierRunner

pytestmark = pytest.mark.gpu4x24


def test_published_sharded_runs_out_of_memory_in_the_unshard(tier: TierRunner) -> None:
    """Shards fill a card; gathering the text embedding does not fit beside them."""
    tier.check("published_sharded")


def test_published_replicated_runs_out_of_memory_in_the_unshard(tier: TierRunner) -> None:
    """Whole encoders beside a shard leave too little for the root unit's 4.17 GiB."""
    tier.check("published_replicated")
