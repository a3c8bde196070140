"""What fewer bits, fewer steps and fewer pixels do to the video of one process."""

import pytest

from suites.harness.pytest_plugin.tier_runner import TierRunner

pytestmark = pytest.mark.quality1


def test_bfloat16_changes_what_nobody_sees(miniature: TierRunner) -> None:
    """The published layout against 32 bits."""
    assert miniature.check("bf16").quality["latent_cosine"] > 0.99


def test_eight_bit_integers_keep_the_video(miniature: TierRunner) -> None:
    """Published as nearly the original's quality."""
    assert miniature.check("int8").quality["latent_cosine"] > 0.99


def test_a_step_less_costs_more_than_half_the_bits(miniature: TierRunner) -> None:
    """Three steps are published as slightly blurred, float8 as nearly the original: how much is in the records."""
    fp8, three_steps = (miniature.check(case).quality["psnr_db"] for case in ("fp8", "three_steps"))
    assert three_steps < fp8


@pytest.mark.nightly
@pytest.mark.parametrize("case", ["low_resolution", "preview"])
def test_fewer_pixels_are_what_blurs(miniature: TierRunner, case: str) -> None:
    """Published of 3 steps at 384*256: a size that is enlarged has lost its fine detail, whatever the steps."""
    assert miniature.check(case).quality["sharpness_kept_ratio"] < 0.8


@pytest.mark.nightly
@pytest.mark.parametrize("case", ["fp8_caches", "block_offload", "thirty_clips"])
def test_the_rest(miniature: TierRunner, case: str) -> None:
    """8-bit caches, weights from host memory, a video of a minute."""
    miniature.check(case)
