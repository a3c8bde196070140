"""Latents on their way: from a rank of the timestep pipeline to the next, and to the rank that decodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.deployment import Deployment
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.hooks import exchange
from liveavatar_core.parallel.world import World


def latents_rank(deployment: Deployment) -> int:
    """The rank that ends blocks, and sends them to the decode rank if there is one."""
    return deployment.num_gpus_dit - 1 if deployment.timestep_pipeline else 0


def send(latents: Tensor, rank: int) -> None:
    """Hand latents to `rank`; returns when they may be dropped."""
    with exchange(latents):
        dist.send(_host_buffer(latents).copy_(latents) if _by_host(latents) else latents, dst=rank)


def receive(shape: tuple[int, ...], rank: int, memory: Memory) -> Tensor:
    """Float32 latents of a shape from `rank`, on the card; waits until that one has made them."""
    latents = torch.empty(shape, device=memory.card)
    with exchange(latents, kind="waiting"):
        buffer = _host_buffer(latents) if _by_host(latents) else latents
        dist.recv(buffer, src=rank)
    return latents if buffer is latents else latents.copy_(buffer)


def _by_host(latents: Tensor) -> bool:
    """Whether latents go by way of host memory: gloo's send and receive read nothing else."""
    return latents.is_cuda and dist.get_backend() == dist.Backend.GLOO


def _host_buffer(latents: Tensor) -> Tensor:
    with scopes.place("host"):
        return torch.empty(latents.shape, dtype=latents.dtype, pin_memory=True)


@dataclass(frozen=True, kw_only=True)
class TimestepPipe:
    """Rank i's place in a pipe whose rank i computes step i. One message a block goes to the next rank."""

    step: int
    """This rank, and its step."""
    steps: int
    """Ranks of the pipe; the next one decodes."""
    memory: Memory
    """Where latents are received."""

    @classmethod
    def of(cls, world: World, deployment: Deployment) -> Self:
        """The place of this rank, one of the transformer's."""
        return cls(step=world.rank, steps=deployment.num_gpus_dit, memory=world.memory)

    @property
    def is_first(self) -> bool:
        """Whether this rank starts from noise."""
        return self.step == 0

    @property
    def is_last(self) -> bool:
        """Whether what this rank makes is clean."""
        return self.step == self.steps - 1

    def receive(self, shape: tuple[int, ...]) -> Tensor:
        """A block from the rank before."""
        return receive(shape, self.step - 1, self.memory)

    def pass_on(self, latents: Tensor) -> None:
        """A block to the rank behind."""
        send(latents, self.step + 1)

    def share_from_last(self, reference: Tensor) -> Tensor:
        """The last rank's `reference`, on every rank; the others give anything of its shape."""
        if not self.is_last:
            return receive(tuple(reference.shape), self.steps - 1, self.memory)
        for rank in range(self.steps - 1):
            send(reference, rank)
        return reference
