"""A rank's readings as they cross the channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from liveavatar_core.simulation.memory_account import PhasePeak


def phase_peaks(rank: int, peaks: Mapping[str, PhasePeak]) -> list[dict[str, Any]]:
    """What a tracker saw, an entry for each phase."""
    return [
        {
            "rank": rank,
            "phase": phase,
            "allocated_bytes": peak.allocated,
            "by_category": peak.by_category,
            "host_bytes": peak.host_allocated,
        }
        for phase, peak in peaks.items()
    ]
