"""The two memories of a rank, card and host, and moving things between them.

On a lab machine they are a CUDA device and the CPU. On a machine without a card one device plays both: a move is
then a copy whose scope says where it stands, so that a tracker counts what a card would have to hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from liveavatar_core import scopes
from liveavatar_core.deployment import Deployment
from liveavatar_core.torch_private import set_allocator


def prepare_card(card: torch.device, deployment: Deployment) -> None:
    """Make a CUDA device the one that this process uses, its allocator set as the deployment declares."""
    if deployment.expandable_segments:  # what the environment set for other reasons is left alone
        set_allocator("expandable_segments:True")
    torch.cuda.set_device(card)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Where a rank computes and where it puts things aside."""

    card: torch.device
    """Device that computes."""
    host: torch.device = torch.device("cpu")
    """Device that stands for host memory."""

    def device(self, place: str) -> torch.device:
        """The device behind a place of `scopes.PLACES`."""
        return self.card if place == "card" else self.host

    def move(self, tensor: torch.Tensor, place: str, *, wait: bool = True) -> torch.Tensor:
        """A copy of `tensor` that stands in `place`; with `wait` False a pinned one may still be on its way."""
        with scopes.place(place):
            device = self.device(place)
            return tensor.to(device, non_blocking=not wait) if tensor.device != device else tensor.clone()

    def bring(self, module: nn.Module) -> None:
        """Move every parameter and buffer to the card for good, so that no more than one stands in both memories."""
        with scopes.category("parameters"), torch.no_grad():
            for tensor in _tensors(module):
                tensor.data = self.move(tensor, "card")

    @contextmanager
    def lent(self, module: nn.Module) -> Iterator[None]:
        """Have every parameter and buffer on the card while inside.

        What stands in host memory stays there, pinned where it is, and is what the module has again afterwards:
        nothing is copied back.
        """
        resting = [(tensor, tensor.data) for tensor in _tensors(module)]
        with scopes.category("parameters"), torch.no_grad():
            for tensor, host in resting:
                tensor.data = self.move(host, "card", wait=False)
        try:
            yield
        finally:
            for tensor, host in resting:
                tensor.data = host


def _tensors(module: nn.Module) -> Iterable[torch.Tensor]:
    """Every parameter and buffer, once."""
    return dict.fromkeys((*module.parameters(), *module.buffers()))
