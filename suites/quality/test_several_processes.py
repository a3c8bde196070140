"""The video does not depend on how the work lies over ranks."""

import pytest

from suites.harness.pytest_plugin.tier_runner import TierRunner


@pytest.mark.nightly
@pytest.mark.quality2
@pytest.mark.parametrize("case", ["ulysses", "sharded", "decode_rank", "sharded_thirty_clips"])
def test_two_processes_make_the_video_of_one(miniature: TierRunner, case: str) -> None:
    """Two processes make the video of one, but for the last bits of bfloat16."""
    assert miniature.check(case).quality["latent_cosine"] > 0.99


@pytest.mark.nightly
@pytest.mark.quality5
@pytest.mark.parametrize("case", ["sharded", "timestep_pipeline"])
def test_five_processes_make_the_video_of_one(miniature: TierRunner, case: str) -> None:
    """The published layout of five cards, and the original's pipeline of four noise levels."""
    assert miniature.check(case).quality["latent_cosine"] > 0.99
