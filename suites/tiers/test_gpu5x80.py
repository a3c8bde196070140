"""Five 80 GB cards run Live Avatar as its authors did: a card a denoising step, and one that decodes."""

import pytest

from suites.harness.pytest_plugin.tier_runner import TierRunner

pytestmark = pytest.mark.gpu5x80


def test_the_timestep_pipeline_fits(tier: TierRunner) -> None:
    """Nothing is sharded and nothing gathered: each card holds the transformer and one KV cache."""
    tier.check("timestep_pipeline")
