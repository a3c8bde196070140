"""Which rank this process is, what it does, and which others it works with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.ranks import Role, decode_rank, role_of


@dataclass(frozen=True, kw_only=True)
class World:
    """One rank's view of the group it runs in."""

    rank: int
    """This process, from 0."""
    size: int
    """Processes in all."""
    role: Role
    """whole: computes the transformer and decodes; transformer: only the first; decode: only the second."""
    memory: Memory
    """The card and the host memory of this rank."""
    all_ranks: DeviceMesh | None = None
    """Every rank; None alone."""
    transformer_ranks: DeviceMesh | None = None
    """The ranks that compute the transformer; None alone, or where it is not one of them."""
    decode_rank: int = 0
    """The rank whose frames are the video; see `decode_rank`."""

    @property
    def computes_transformer(self) -> bool:
        """Whether this rank holds (a shard of) the transformer."""
        return self.role != "decode"

    @property
    def decodes(self) -> bool:
        """Whether this rank turns latents into frames."""
        return self.role != "transformer"


def join_world(deployment: Deployment, memory: Memory, timeout: timedelta | None = None) -> World:
    """This process among the ranks of `deployment`; torch.distributed must be initialised if there are several.

    timeout: of a group that is made here, which takes none from the one that there is; None: torch's default.
    """
    if deployment.num_cards == 1:
        return World(rank=0, size=1, role="whole", memory=memory)
    rank, size = dist.get_rank(), dist.get_world_size()
    if size != deployment.num_cards:
        raise InvalidRecipe(
            f"{size} processes were started for a deployment over {deployment.num_cards} cards",
            f"start {deployment.num_cards} (torchrun --nproc-per-node {deployment.num_cards})",
        )
    # Of the group that there is: init_device_mesh would make one of its own, on cards an NCCL one, where that is gloo.
    assert dist.group.WORLD is not None  # there is a rank
    mesh = DeviceMesh.from_group(dist.group.WORLD, memory.card.type, mesh=list(range(size)), mesh_dim_names=("all",))
    return World(
        rank=rank,
        size=size,
        role=role_of(deployment, rank),
        memory=memory,
        decode_rank=decode_rank(deployment),
        all_ranks=mesh,
        transformer_ranks=_transformer_mesh(deployment, mesh, rank, timeout),
    )


def _transformer_mesh(
    deployment: Deployment, everyone: DeviceMesh, rank: int, timeout: timedelta | None
) -> DeviceMesh | None:
    if not deployment.enable_vae_parallel:
        return everyone
    if deployment.num_gpus_dit == 1:
        return None
    ranks = list(range(deployment.num_gpus_dit))
    group = dist.new_group(ranks, timeout=timeout)  # collective: the decode rank takes part in making it
    if rank not in ranks:
        return None
    return DeviceMesh.from_group(group, everyone.device_type, mesh=ranks, mesh_dim_names=("transformer",))
