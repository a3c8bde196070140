"""Loading sharded weights: every rank reads its own rows and no more, and host memory holds one weight at a time."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import torch
from deployments import small
from torch import Tensor

from liveavatar_core.deployment import Deployment
from liveavatar_core.parallel.load import PARTS, build_part
from liveavatar_core.parallel.system import load_system
from liveavatar_core.simulation.fake_world import MetaSource, fake_world
from liveavatar_core.simulation.memory_tracker import MemoryTracker
from liveavatar_core.weights.source import WeightSource

RANKS = 5


class CountingSource(WeightSource):
    """Meta weights that count the bytes read."""

    def __init__(self, source: MetaSource) -> None:
        self._source = source
        self.read_bytes, self.largest = 0, 0

    def names(self) -> Collection[str]:
        return self._source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self._source.dtype(name)

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        values = self._source.read(name, rows)
        self.read_bytes += values.nbytes
        self.largest = max(self.largest, values.nbytes)
        return values


@pytest.mark.parametrize("shard", ["per_parameter", "flat"])
def test_five_ranks_read_every_weight_once(shard: str):
    recipe = small(Deployment(num_gpus_dit=RANKS, ulysses_size=RANKS, shard=shard, shard_scope="everything"))
    parts = {name: build_part(name, recipe, torch.float32) for name in PARTS}
    whole = sum(weight.nbytes for part in parts.values() for weight in part.parameters())
    row = max(weight[:1].nbytes for part in parts.values() for weight in part.parameters() if weight.dim())
    weights = sum(1 for part in parts.values() for _ in part.parameters())
    total = 0
    for rank in range(RANKS):
        sources = {name: CountingSource(MetaSource.for_module(part)) for name, part in parts.items()}
        tracker = MemoryTracker(rank=rank)
        with fake_world(recipe.deployment, rank) as world, tracker:
            load_system(recipe, world, sources)
        read = sum(source.read_bytes for source in sources.values())
        assert read < whole / 2
        largest = max(source.largest for source in sources.values())
        assert tracker.peaks["load"].host_allocated <= 2 * largest + 4096
        total += read
    shared_rows = 2 * row * weights if shard == "flat" else 0
    assert whole <= total <= whole + shared_rows
