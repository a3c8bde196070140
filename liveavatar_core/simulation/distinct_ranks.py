"""Every rank of a recipe that differs from the others, simulated."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from liveavatar_core.config import Recipe
from liveavatar_core.errors import OutOfMemory
from liveavatar_core.parallel.ranks import distinct_ranks
from liveavatar_core.simulation.allocator_verdict import AllocatorVerdict
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank, with_expandable_segments
from liveavatar_core.simulation.fake_card import CARD
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

    @property
    def machine_host_bytes(self) -> int:
        """Bytes that all ranks together hold in host memory, each at its fullest moment."""
        most = {made.rank: max(peak.host_allocated for peak in made.peaks.values()) for made in self.ranks}
        return sum(most[made.rank] * len(self.alike[made.rank]) for made in self.ranks)

    @property
    def reserved_peak_bytes(self) -> int:
        """Most bytes that the allocator of a simulated rank holds: tensors, and pieces between them."""
        return max(made.allocator.reserved_peak_bytes for made in self.ranks)

    @property
    def retries(self) -> int:
        """How often the allocator of one rank gives cached segments back to make room, at most."""
        return max(made.allocator.retries for made in self.ranks)

    def with_expandable_segments(self, recipe: Recipe, capacity: Capacity) -> AllocatorVerdict | None:
        """What `expandable_segments` makes of the last rank that loses its card to pieces; None: nothing better."""
        found = (with_expandable_segments(recipe, made, capacity) for made in reversed(self.ranks))
        return next((better for better in found if better is not None), None)


def simulate_distinct_ranks(recipe: Recipe, capacity: Capacity, card: torch.device = CARD) -> SimulatedRecipe:
    """Simulate every distinct rank of `recipe` under `capacity`; stop at the first that runs out of memory.

    card: what computes, as for `simulate_rank`.
    """
    alike = distinct_ranks(recipe.deployment)
    ranks: list[SimulatedRank] = []
    for rank in alike:
        ranks.append(simulate_rank(recipe, rank, capacity, card=card))
        if ranks[-1].out_of_memory is not None:
            break
    return SimulatedRecipe(ranks=tuple(ranks), alike=alike)
