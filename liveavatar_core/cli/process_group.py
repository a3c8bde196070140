"""One process as one rank of a deployment; torchrun starts them when there are several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadInput

if TYPE_CHECKING:
    import torch


def this_rank() -> int:
    """The number of this process among the ranks; 0 alone."""
    return int(os.environ.get("RANK", "0"))


def is_first_rank() -> bool:
    """Whether this process is the one that shows how far the work is."""
    return this_rank() == 0


def check_ranks(deployment: Deployment, device: str) -> None:
    """Refuse a deployment whose cards or processes are not here. Raises BadInput."""
    wanted, started = deployment.num_cards, int(os.environ.get("WORLD_SIZE", "1"))
    if device == "cuda":
        _check_cards(int(os.environ.get("LOCAL_WORLD_SIZE", wanted)))
    if started != wanted:
        raise BadInput(
            f"a deployment over {wanted} ranks takes {wanted} processes; {started} started",
            f"torchrun --nproc-per-node {wanted} -m liveavatar_core generate ...",
        )


def _check_cards(wanted: int) -> None:
    import torch

    visible = torch.cuda.device_count()
    if wanted > visible:
        raise BadInput(
            f"{wanted} rank(s) here, each with a card of its own; {visible} cards are visible",
            "lay it out over fewer (--num_gpus_dit), or compute without cards (--device cpu)",
        )


@contextmanager
def join_ranks(deployment: Deployment, device: str) -> Iterator[torch.device]:
    """The device of this rank, in a process group if there are several ranks."""
    import torch
    import torch.distributed as dist

    from liveavatar_core.parallel.devices import prepare_card

    mine = torch.device(device, int(os.environ.get("LOCAL_RANK", "0"))) if device == "cuda" else torch.device(device)
    if mine.type == "cuda":
        prepare_card(mine, deployment)
    if deployment.num_cards == 1:
        yield mine
        return
    dist.init_process_group("nccl" if mine.type == "cuda" else "gloo")
    try:
        yield mine
    finally:
        dist.destroy_process_group()
