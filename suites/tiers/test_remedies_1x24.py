"""One 24 GB card runs the 14B model, if most of it stands in host memory or in 8 bits."""

import pytest

from suites.harness.pytest_plugin.tier_runner import TierRunner

pytestmark = pytest.mark.gpu1x24


def test_as_published_the_transformer_does_not_fit(tier: TierRunner) -> None:
    """The published layout runs out of memory: it is what the remedies below remedy."""
    tier.check("single")


def test_float8_weights_fit_beside_caches_in_host_memory(tier: TierRunner) -> None:
    """The fastest layout that fits keeps weights in float8 and caches in host memory."""
    tier.check("fp8_offload")


def test_blocks_brought_over_one_ahead_fit_at_full_precision(tier: TierRunner) -> None:
    """Blocks come from host memory and nothing is rounded; the host bus is the price."""
    tier.check("block_offload")


def test_blocks_in_float8_fit(tier: TierRunner) -> None:
    """Blocks in float8 are half as much to bring over."""
    tier.check("block_offload_fp8")


def test_blocks_in_8_bit_integers_fit(tier: TierRunner) -> None:
    """Blocks in 8-bit integers fit too, for cards that cannot multiply float8."""
    tier.check("block_offload_int8")
