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
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # the default keeps 10 bits of 23
            return F.conv1d(x_NCT.float(), self.weight.float(), bias, self.stride)


class GeluTanh(nn.Module):
    """GELU, tanh approximation; takes its input's memory where no gradient is wanted."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and dtype as `x`, the fresh output of a linear."""
        if torch.is_grad_enabled():
            return F.gelu(x, approximate="tanh")
        return torch.ops.aten.gelu_(x, approximate="tanh")


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
    """Cuts latents into patches and embeds each; its weights' dtype is the dtype of the tokens.

    A product of cut-out patches, not a convolution: the CPU's bfloat16 convolution adds up in bfloat16.
    """

    def __init__(self, channels: int, dim: int, patch: tuple[int, int, int]) -> None:
        super().__init__(channels, dim, kernel_size=patch, stride=patch)
        self.patch = patch

    def forward(self, x_BCFHW: Tensor | None) -> Tensor:
        """Latents to tokens [B, F, tokens of a frame, dim], order f, h, w; what fills no patch is left out.

        None stands for zeros, of which only the bias [dim] remains.
        """
        assert self.bias is not None
        if x_BCFHW is None:
            return self.bias
        (frames, height, width), (batch, channels) = self.patch, x_BCFHW.shape[:2]
        f, h, w = (size // cut for size, cut in zip(x_BCFHW.shape[2:], self.patch, strict=True))
        whole = x_BCFHW[:, :, : f * frames, : h * height, : w * width]
        cut = whole.reshape(batch, channels, f, frames, h, height, w, width).permute(0, 2, 4, 6, 1, 3, 5, 7)
        patches_BFSP = cut.reshape(batch, f, h * w, -1).to(self.weight.dtype)
        return F.linear(patches_BFSP, self.weight.flatten(1), self.bias)
