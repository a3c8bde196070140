"""The tiers that a lab adds with --tiers FILE: each case ends as the file says."""

from suites.harness.pytest_plugin.tier_runner import TierRunner


def test_ends_as_its_file_says(tier: TierRunner, added_case: str) -> None:
    """A case ends as the lab's file expects."""
    tier.check(added_case)
