"""A world without cards or peers: tensors that have no memory, a process group whose collectives return at once."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.world import World, join_world
from liveavatar_core.simulation.fake_card import fake_card
from liveavatar_core.simulation.fake_tensors import QuickFakeMode
from liveavatar_core.torch_private import FakeStore
from liveavatar_core.weights.source import WeightSource

CPU = torch.device("cpu")


class MetaSource(WeightSource):
    """Weights that have shapes and no values."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        self._shapes, self._dtype = dict(shapes), dtype

    @classmethod
    def for_module(cls, module: nn.Module) -> MetaSource:
        """For every parameter of a module on the meta device, in its own type."""
        named = dict(module.named_parameters())
        return cls({name: tuple(weight.shape) for name, weight in named.items()}, next(iter(named.values())).dtype)

    def names(self) -> Collection[str]:
        """Every weight."""
        return self._shapes.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight."""
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        """The type of a weight."""
        return self._dtype

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """An empty tensor of that shape."""
        shape = self._shapes[name]
        first, last, _ = (rows or slice(None)).indices(shape[0] if shape else 1)
        return torch.empty((last - first, *shape[1:]) if rows is not None else shape, dtype=self._dtype)


@contextmanager
def fake_world(deployment: Any, rank: int, card: torch.device = CPU) -> Iterator[World]:
    """Be `rank` of a deployment whose other ranks do not exist. Tensors made inside hold no memory.

    card: what tensors on the card say; with the CPU, one device plays card and host.
    """
    several = deployment.num_cards > 1
    if several:
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=deployment.num_cards)
    try:
        world = join_world(deployment, Memory(card=card))  # meshes need real tensors
        cuda = fake_card() if card.type == "cuda" else nullcontext()
        with warnings.catch_warnings(), cuda, QuickFakeMode(), torch.no_grad():
            warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
            yield world
    finally:
        if several:
            dist.destroy_process_group()
