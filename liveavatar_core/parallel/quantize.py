"""Linear layers kept in 8 bits: float8 (e4m3), as in the original, or weight-only 8-bit integers.

Modules of our own rather than torchao's: importing that takes seconds in every process, and these are two forwards.

Legend: N tokens, I in_features, O out_features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from liveavatar_core import torch_private
from liveavatar_core.deployment import Deployment
from liveavatar_core.model.cache import FLOAT8_MAX

KEPT_WHOLE = "text_embedding"
"""Plain linear layers that the original does not round; the others it leaves are Float32Linear."""


class QuantizedLinear(nn.Module, ABC):
    """Base: an 8-bit weight, its scale in float32, a bias as it was."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, scales: int) -> None:
        """Take the place of `linear`, which stands on the meta device; `scales` of them, over output channels."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty_like(linear.weight, dtype=dtype), requires_grad=False)
        self.scale = nn.Parameter(torch.empty(scales, dtype=torch.float32, device="meta"), requires_grad=False)
        self.bias = linear.bias

    def load_(self, weight_OI: Tensor) -> None:
        """Round and take `weight_OI`, any floating type."""
        rounded, scale = self.rounded(weight_OI)
        self.weight.copy_(rounded)
        self.scale.copy_(scale)

    @abstractmethod
    def rounded(self, weight_OI: Tensor) -> tuple[Tensor, Tensor]:
        """The weight in 8 bits and what to multiply that with."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O], same dtype. The weight of this one layer stands there in the dtype of `x`."""
        out = F.linear(x, self.weight.to(x.dtype)).mul_(self.scale)
        return out.add_(self.bias)


class Float8Linear(QuantizedLinear):
    """One scale for the weight, kept in float8 and multiplied in `x`'s dtype."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear, torch.float8_e4m3fn, scales=1)

    def rounded(self, weight_OI: Tensor) -> tuple[Tensor, Tensor]:
        """The weight in 8 bits and what to multiply that with."""
        return to_float8(weight_OI)


class Float8MultipliedLinear(Float8Linear):
    """A Float8Linear with inputs rounded to float8 too, one scale a call, and multiplied in float8."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O], same dtype. CUDA cards need compute capability 8.9 (Ada) or newer."""
        x_NI, x_scale = to_float8(x.flatten(0, -2))
        out_NO = torch_private.scaled_mm(
            x_NI, self.weight.t(), x_scale, self.scale, bias=self.bias, out_dtype=x.dtype, use_fast_accum=x.is_cuda
        )
        return out_NO.unflatten(0, x.shape[:-1])


class Int8Linear(QuantizedLinear):
    """A scale an output channel; weights only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear, torch.int8, scales=linear.out_features)

    def rounded(self, weight_OI: Tensor) -> tuple[Tensor, Tensor]:
        """The weight in 8 bits and what to multiply that with."""
        scale_O = weight_OI.abs().amax(dim=1).float().clamp_(min=1e-12) / 127
        return (weight_OI / scale_O[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale_O


def to_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` in float8 and the float32 scale [1] that gives it back; rounded as the original does."""
    low, high = x.aminmax()
    largest = torch.maximum(high, -low).float().clamp(min=1e-12)
    factor = (FLOAT8_MAX / largest).clamp(max=FLOAT8_MAX)
    return (x * factor).clamp_(-FLOAT8_MAX, FLOAT8_MAX).to(torch.float8_e4m3fn), factor.reciprocal().view(1)


def quantize(transformer: nn.Module, deployment: Deployment) -> None:
    """Replace the linear layers of blocks and injectors, on the meta device, in place."""
    if not deployment.quantized:
        return
    floating = Float8MultipliedLinear if deployment.fp8_multiply else Float8Linear
    kind = floating if deployment.fp8 else Int8Linear
    for path, parent in list(transformer.named_modules()):
        if path.startswith(KEPT_WHOLE):
            continue
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, kind(child))
