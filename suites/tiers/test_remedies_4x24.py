"""Four 24 GB cards do run Live Avatar, laid out in any of these ways."""

import pytest

from suites.harness.pytest_plugin.tier_runner import TierRunner

pytestmark = pytest.mark.gpu4x24


def test_bfloat16_shards_fit(tier: TierRunner) -> None:
    """The published layout in half the bytes, the LoRA merged."""
    tier.check("bf16_sharded")


def test_encoders_given_up_after_use_make_room(tier: TierRunner) -> None:
    """The text encoder works once, before anything else needs its memory."""
    tier.check("encoders_freed")


def test_the_text_encoder_in_host_memory_makes_room(tier: TierRunner) -> None:
    """The text encoder runs in host memory, once a video."""
    tier.check("encoders_on_host")


def test_the_decode_rank_has_room_for_the_text_encoder(tier: TierRunner) -> None:
    """The transformer ranks get what it made."""
    tier.check("text_on_decode_rank")


def test_float8_makes_gathering_unnecessary(tier: TierRunner) -> None:
    """Every card holds the whole transformer."""
    tier.check("fp8_ulysses")
