"""Small layers that fix in which precision they compute."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the customary name

_UPCAST_ROWS = 8192


class Float32Linear(nn.Linear):
    """Linear in float32, whatever its weights' dtype; a few thousand rows are upcast at a time."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] of any dtype to [..., out_features] float32."""
        if self.weight.dtype == torch.float32:
            return F.linear(x.float(), self.weight, self.bias)
        rows = zip(self.weight.split(_UPCAST_ROWS), self.bias.split(_UPCAST_ROWS), strict=True)
        return torch.cat([F.linear(x.float(), w.float(), b.float()) for w, b in rows], dim=-1)


class Float32Conv1d(nn.Conv1d):
    """1-D convolution computed in float32 whatever its weights' dtype."""

    def forward(self, x_NCT: Tensor) -> Tensor:
        """[N, in_channels, T] of any dtype to float32."""
        bias = None if self.bias is None else self.bias.float()
        return F.conv1d(x_NCT.float(), self.weight.float(), bias, self.stride)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, statistics in float32."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and dtype as `x`."""
        if x.is_cuda:
            return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)
        # F.rms_norm has no kernel here: it squares x into a tensor of its own and takes three times as long.
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        mean_square = torch.rsub(length.square(), self.eps, alpha=-1 / x.shape[-1])  # eps + length² / C
        normed = x * mean_square.rsqrt_()
        weighted = normed * self.weight if torch.is_grad_enabled() else normed.mul_(self.weight)
        return weighted.to(x.dtype)


class PatchEmbedding(nn.Conv3d):
    """Cuts latents into patches and embeds each; its weights' dtype is the dtype of the tokens."""

    def __init__(self, channels: int, dim: int, patch: tuple[int, int, int]) -> None:
        super().__init__(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, x_BCFHW: Tensor) -> Tensor:
        """Latents to tokens [B, F, tokens of a frame, dim], order f, h, w."""
        return super().forward(x_BCFHW.to(self.weight.dtype)).flatten(3).permute(0, 2, 3, 1)
