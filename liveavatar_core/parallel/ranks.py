"""What each rank of a deployment does. Free of torch."""

from __future__ import annotations

from typing import Literal

from liveavatar_core.deployment import Deployment

Role = Literal["transformer", "decode", "whole"]
"""whole: computes the transformer and decodes; transformer: only the first; decode: only the second."""


def role_of(deployment: Deployment, rank: int) -> Role:
    """What a rank does in a deployment."""
    if not deployment.enable_vae_parallel:
        return "whole"
    return "decode" if rank == deployment.num_gpus_dit else "transformer"


def decode_rank(deployment: Deployment) -> int:
    """The rank whose frames are the video: the decode rank, or the first where every rank decodes."""
    return deployment.num_gpus_dit if deployment.enable_vae_parallel else 0


def distinct_ranks(deployment: Deployment) -> dict[int, tuple[int, ...]]:
    """The lowest rank of each role, with all the ranks that it stands for.

    It is the fullest of its role: shards and heads that do not divide give the first ranks one more.
    """
    roles: dict[Role, list[int]] = {}
    for rank in range(deployment.num_cards):
        roles.setdefault(role_of(deployment, rank), []).append(rank)
    return {ranks[0]: tuple(ranks) for ranks in roles.values()}
