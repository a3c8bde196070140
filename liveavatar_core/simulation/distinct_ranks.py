"""Every rank of a recipe that differs from the others, simulated."""

from __future__ import annotations

from dataclasses import dataclass

from liveavatar_core.config import Recipe
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.parallel.ranks import distinct_ranks
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank
from liveavatar_core.simulation.memory_account import Capacity


@dataclass(frozen=True, kw_only=True)
class SimulatedRecipe:
    """What a recipe came to: its distinct ranks, up to and including the first that ran out of memory."""

    ranks: tuple[SimulatedRank, ...]
    """The lowest rank of each role that was simulated, in their order."""
    alike: dict[int, tuple[int, ...]]
    """All ranks that each distinct rank of the recipe stands for, whether it was simulated or not."""

    @property
    def out_of_memory(self) -> OutOfMemory | None:
        """Where a rank's memory was too small; None: every rank passed."""
        return self.ranks[-1].out_of_memory

    @property
    def peak_bytes(self) -> int:
        """Most bytes allocated on the fullest card that was simulated."""
        return max(rank.peak_bytes for rank in self.ranks)

    @property
    def host_peak_bytes(self) -> int:
        """Most bytes that one simulated rank held in host memory."""
        return max(peak.host_allocated for rank in self.ranks for peak in rank.peaks.values())


def simulate_distinct_ranks(recipe: Recipe, capacity: Capacity) -> SimulatedRecipe:
    """Simulate every distinct rank of `recipe` under `capacity`; stop at the first that runs out of memory."""
    alike = distinct_ranks(recipe.deployment)
    ranks: list[SimulatedRank] = []
    for rank in alike:
        ranks.append(simulate_rank(recipe, rank, capacity))
        if ranks[-1].out_of_memory is not None:
            break
    return SimulatedRecipe(ranks=tuple(ranks), alike=alike)
