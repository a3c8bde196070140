"""Latents of ranks whose cards have no NCCL between them go by way of pinned host memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from stand_in_card import CARD, CardTensor, StandInCard, gloo_that_refuses_cards

from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.timestep import receive, send
from suites.harness.processes.link import Link
from suites.harness.processes.rank_group import Job, RankGroup

SHAPE = (1, 16, 3, 4, 6)


@dataclass(frozen=True, kw_only=True)
class Received:
    """What a rank got."""

    device: str
    total: float
    pinned: int


def pass_latents(link: Link) -> None:
    """Command `pass`: latents go from rank 0 to rank 1."""
    dist.init_process_group("gloo", init_method=link.rendezvous, rank=link.rank, world_size=link.world_size)
    for _ in link.commands():
        with gloo_that_refuses_cards(), StandInCard() as card:
            if link.rank == 0:
                latents = torch.ones(SHAPE, device=CARD).transpose(2, 3).contiguous().view(SHAPE)
                send(latents, 1)
            else:
                latents = receive(SHAPE, 0, Memory(card=CARD))
            told = Received(device=str(latents.device), total=float(latents.sum()), pinned=len(card.pinned))
        link.reply(told)
    dist.destroy_process_group()


def test_latents_pass_between_cards_over_gloo(tmp_path: Path):
    job = Job(target="test_gloo_cards:pass_latents", world_size=2, preload=("torch",))
    with RankGroup.start(job, tmp_path) as ranks:
        told = ranks.command("pass", answer=Received)
    assert told == [Received(device="cuda:0", total=float(torch.Size(SHAPE).numel()), pinned=1)] * 2


def test_the_stand_in_refuses_what_a_card_refuses():
    with StandInCard(), gloo_that_refuses_cards():
        on_card = torch.ones(3, device=CARD)
        assert isinstance(on_card * 2, CardTensor)
        assert type(on_card.cpu()) is torch.Tensor
        with pytest.raises(RuntimeError, match="one device"):
            on_card + torch.ones(3)
        with pytest.raises(RuntimeError, match="gloo"):
            dist.send(on_card, dst=0)
