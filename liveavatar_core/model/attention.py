"""Scaled dot-product attention that also returns its log-sum-exp, so that parts can be merged exactly.

Legend: B batch, L query tokens, T key tokens, H heads, D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from liveavatar_core.errors import InvalidRecipe

_CUDA_FLASH_DTYPES = (torch.bfloat16, torch.float16)
_CPU_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def attention(q_BLHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor) -> Tensor:
    """Every query attends to every key, scale 1/sqrt(D). Returns BLHD."""
    return _attention_lse(q_BLHD, k_BTHD, v_BTHD)[0]


def attention_over_both(
    q_BLHD: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]
) -> Tensor:
    """Attention over the keys and values of both parts together, without joining them in memory. Returns BLHD.

    Where gradients are wanted the parts are joined: no kernel differentiates its log-sum-exp.
    """
    if torch.is_grad_enabled():
        k_BTHD, v_BTHD = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
        return attention(q_BLHD, k_BTHD, v_BTHD)
    out_BLHD, lse_BLH = _attention_lse(q_BLHD, *first)
    other_BLHD, other_lse_BLH = _attention_lse(q_BLHD, *second)
    weight_BLH1 = torch.sub(lse_BLH, other_lse_BLH).sigmoid_().to(out_BLHD.dtype).unsqueeze(-1)
    return other_BLHD.lerp_(out_BLHD, weight_BLH1)


def _attention_lse(q_BLHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor) -> tuple[Tensor, Tensor]:
    """The one place that chooses a kernel. Returns the output BLHD and the log-sum-exp BLH in float32.

    Raises:
        InvalidRecipe: no kernel for this device and dtype; nothing is substituted.
    """
    q, k, v = (x.transpose(1, 2) for x in (q_BLHD, k_BTHD, v_BTHD))
    device, dtype = q.device.type, q.dtype
    if device == "cpu" and dtype in _CPU_DTYPES:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    elif device == "cuda" and dtype in _CUDA_FLASH_DTYPES:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[:2]
    elif device == "cuda" and dtype == torch.float32:
        out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[:2]
        lse = lse[..., : q.shape[2]]  # padded to a multiple of 32
    else:
        raise InvalidRecipe(
            f"no attention kernel for {dtype} on {device}; there are float32, bfloat16, float16 on cpu and cuda",
            "choose another compute_dtype or device",
        )
    return out.transpose(1, 2), lse.transpose(1, 2)
