"""What fewer bits, fewer steps and fewer pixels do to the film of one process."""

import pytest

from suites.harness.tier_runner import TierRunner

pytestmark = pytest.mark.quality1


def test_bfloat16_changes_what_nobody_sees(miniature: TierRunner) -> None:
    """The published layout against 32 bits."""
    assert miniature.check("bf16").quality["latent_cosine"] > 0.99


@pytest.mark.parametrize("case", ["fp8", "int8"])
def test_eight_bits_keep_the_film(miniature: TierRunner, case: str) -> None:
    """Published as nearly the original's quality."""
    assert miniature.check(case).quality["latent_cosine"] > 0.99


def test_three_steps_make_another_film(miniature: TierRunner) -> None:
    """Published as slightly blurred: how much is in the record. It is further off than 8 bits are."""
    assert miniature.check("three_steps").quality["latent_cosine"] < 0.99


@pytest.mark.nightly
@pytest.mark.parametrize("case", ["fp8_caches", "block_offload", "low_resolution", "preview", "thirty_clips"])
def test_the_rest(miniature: TierRunner, case: str) -> None:
    """8-bit caches, weights from host memory, the published preview, a film of a minute."""
    miniature.check(case)
