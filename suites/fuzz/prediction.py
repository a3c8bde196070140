"""What the tracker says of a recipe: one simulation for each rank that differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from liveavatar_core.config import Recipe
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.simulation.distinct_ranks import simulate_distinct_ranks
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.fake_world import CPU
from liveavatar_core.simulation.memory_account import Capacity, PhasePeak


@dataclass(frozen=True, kw_only=True)
class MemoryPrediction:
    """What a simulation says of one recipe on cards of one size."""

    peaks: Mapping[int, Mapping[str, PhasePeak]]
    """Fullest moment of each phase that was reached, by the lowest rank of each role, up to the first that ran out."""
    out_of_memory: OutOfMemory | None
    """The error of the first rank that did not fit; None: all fit."""
    clips: int
    """Clips made by the rank that made fewest."""

    @property
    def needed_bytes(self) -> int:
        """Bytes that the fullest card holds at its fullest moment."""
        return max(peak.allocated for phases in self.peaks.values() for peak in phases.values())

    def most_bytes(self, phase: str) -> int:
        """Bytes that the fullest card holds at the fullest moment of one phase."""
        return max(phases[phase].allocated for phases in self.peaks.values() if phase in phases)


def predict(recipe: Recipe, capacity_bytes: int | None = None) -> MemoryPrediction:
    """Simulate a recipe on cards of `capacity_bytes`; by default unlimited ones, of which 64 answers are kept."""
    return _unlimited(recipe) if capacity_bytes is None else _simulate(recipe, capacity_bytes)


@lru_cache(maxsize=64)
def _unlimited(recipe: Recipe) -> MemoryPrediction:
    return _simulate(recipe, None)


def _simulate(recipe: Recipe, capacity: int | None) -> MemoryPrediction:
    simulated = simulate_distinct_ranks(recipe, Capacity(card=capacity, segments=False), CPU)
    return MemoryPrediction(
        peaks={made.rank: made.peaks for made in simulated.ranks},
        out_of_memory=simulated.out_of_memory,
        clips=min(made.clips for made in simulated.ranks),
    )


def predict_every_rank(recipe: Recipe, *, execute_everything: bool = False) -> list[dict[str, dict[str, int]]]:
    """Bytes of each rank by phase and category, each rank simulated. `execute_everything`: without the shortcut."""
    ranks = (
        simulate_rank(recipe, rank, Capacity(), execute_everything=execute_everything, card=CPU)
        for rank in range(recipe.deployment.num_cards)
    )
    return [{phase: dict(peak.by_category) for phase, peak in made.peaks.items()} for made in ranks]


def forget() -> None:
    """Drop kept answers, as after a change of the code."""
    _unlimited.cache_clear()
