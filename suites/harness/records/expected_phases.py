"""Which phases each rank of a layout goes through, so that a record can say what it must have. Free of torch."""

from __future__ import annotations

from liveavatar_core.deployment import Deployment
from liveavatar_core.parallel.ranks import Role, role_of
from suites.harness.records.measurements import Phase

PHASES_OF: dict[Role, tuple[Phase, ...]] = {
    "whole": ("load", "encode", "prefill", "denoise", "decode"),
    "transformer": ("load", "encode", "prefill", "denoise"),
    "decode": ("load", "encode", "decode"),
}
"""The least that a rank of each role goes through in a run that passes."""


def expected_phases(deployment: Deployment) -> dict[str, tuple[Phase, ...]]:
    """Phases that each rank of `deployment` must have reached in a run that passes, by the rank's number."""
    return {str(rank): PHASES_OF[role_of(deployment, rank)] for rank in range(deployment.num_cards)}
