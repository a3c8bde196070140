"""Muon: momentum whose matrices are made orthogonal, so that few steps go far (Jordan et al., 2024).

torch.optim.Muon takes matrices alone; here a convolution's kernel counts as one, a row an output channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_ADAM_RMS = 0.2
"""Root mean square of an Adam update: rates mean the same for both."""


class Muon(torch.optim.Optimizer):
    """The optimizer for weights of two or more dimensions."""

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float = 0.9) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step; there is no closure."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group["lr"], group["momentum"])

    def _move(self, weight: Tensor, grad: Tensor, rate: float, momentum: float) -> None:
        average = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        average.lerp_(grad, 1 - momentum)
        update = orthogonal(grad.lerp(average, momentum).flatten(1))
        weight.add_(update.view_as(weight), alpha=-rate * _ADAM_RMS * max(update.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest half-orthogonal matrix, roughly: a Newton-Schulz iteration on the singular values."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    a, b, c = _COEFFICIENTS
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
