"""Meshes are made of the groups that ranks have: on cards without NCCL none may be asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from stand_in_card import CARD
from torch.distributed import device_mesh

from liveavatar_core.deployment import Deployment
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.world import join_world
from liveavatar_core.torch_private import FakeStore

SHARED_WORK = Deployment(num_gpus_dit=2, ulysses_size=2)
WITH_A_DECODER = Deployment(num_gpus_dit=2, ulysses_size=2, enable_vae_parallel=True)


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[None]:
    """A group of as many ranks as the deployment has, of which this process is the first and only one."""
    ranks = request.getfixturevalue("deployment").num_cards
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("deployment", [SHARED_WORK, WITH_A_DECODER], ids=["shared work", "with a decoder"])
def test_no_group_is_made_for_all_ranks(deployment: Deployment, group: None, monkeypatch: pytest.MonkeyPatch):
    made: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def told(*args: object, **kwargs: object) -> object:
        made.append((args, kwargs))
        return new_group(*args, **kwargs)

    new_group = dist.new_group
    monkeypatch.setattr(dist, "new_group", told)
    monkeypatch.setattr(device_mesh, "new_group", told)
    monkeypatch.setattr(device_mesh, "get_backend", lambda *_: "gloo")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    world = join_world(deployment, Memory(card=CARD), timedelta(seconds=7))
    assert all(kwargs["timeout"] == timedelta(seconds=7) for _, kwargs in made), "as short as that of all ranks"
    assert world.all_ranks is not None
    assert world.all_ranks.device_type == "cuda"
    assert world.all_ranks.get_group() is dist.group.WORLD
    assert len(made) == int(deployment.enable_vae_parallel)
