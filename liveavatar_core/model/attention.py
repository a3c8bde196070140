"""Scaled dot-product attention, and its exact merging over two parts by their log-sum-exp.

Legend: B batch, H heads, L query tokens, T key tokens, D head width. Tensors are BHLD views of memory where
tokens come before heads, so that neither projections nor kernels need a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import (
    activate_flash_attention_impl,
    current_flash_attention_impl,
    restore_flash_attention_impl,
)

from liveavatar_core import torch_private
from liveavatar_core.errors import InvalidRecipe

_CUDA_FLASH_DTYPES = (torch.bfloat16, torch.float16)
_cuda_kernel = "flash"
_CPU_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def choose_cuda_kernel(name: str) -> None:
    """Have attention in 16 bits on this process's card computed by that kernel from here on.

    `flash` is torch's own, `cudnn` cuDNN's; `flash3` puts FlashAttention 3 in the place of `flash`. ImportError where
    that is not installed.
    """
    global _cuda_kernel
    _cuda_kernel = name
    if name == "flash3":
        activate_flash_attention_impl("FA3")
    elif current_flash_attention_impl():
        restore_flash_attention_impl()


def attention(q_BHLD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor) -> Tensor:
    """Every query attends to every key, scale 1/sqrt(D). Returns BHLD."""
    return _attention_lse(q_BHLD, k_BHTD, v_BHTD)[0]


def attention_over_both(q_BHLD: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Attention over keys and values (BHTD) of both parts, which are not joined in memory. Returns BHLD.

    Where gradients are wanted the parts are joined: no kernel differentiates its log-sum-exp.
    """
    if torch.is_grad_enabled():
        return attention(q_BHLD, *(torch.cat(pair, dim=2) for pair in zip(first, second, strict=True)))
    out_BHLD, lse_BHL = _attention_lse(q_BHLD, *first)
    other_BHLD, other_lse_BHL = _attention_lse(q_BHLD, *second)
    share_BHL1 = torch.sub(lse_BHL, other_lse_BHL).sigmoid_().to(out_BHLD.dtype).unsqueeze(-1)
    return other_BHLD.lerp_(out_BHLD, share_BHL1)


def _attention_lse(q_BHLD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
    """The one place that chooses a kernel. Returns the output BHLD and the log-sum-exp BHL in float32.

    Raises:
        InvalidRecipe: no kernel for this device and dtype; nothing is substituted.
    """
    device, dtype = q_BHLD.device.type, q_BHLD.dtype
    if device == "cpu" and dtype in _CPU_DTYPES:
        return torch_private.flash_attention_cpu(q_BHLD, k_BHTD, v_BHTD)
    if device == "cuda" and dtype in _CUDA_FLASH_DTYPES:
        if _cuda_kernel == "cudnn":
            out_BHLD, lse = torch_private.cudnn_attention_cuda(q_BHLD, k_BHTD, v_BHTD, None, True)[:2]
            return out_BHLD, lse.view(q_BHLD.shape[:3])
        return torch_private.flash_attention_cuda(q_BHLD, k_BHTD, v_BHTD)[:2]
    if device == "cuda" and dtype == torch.float32:
        out_BHLD, padded_lse = torch_private.efficient_attention_cuda(q_BHLD, k_BHTD, v_BHTD, None, True)[:2]
        return out_BHLD, padded_lse[..., : q_BHLD.shape[2]]
    raise InvalidRecipe(
        f"no attention kernel for {dtype} on {device}; cpu and cuda have float32, bfloat16 and float16",
        "choose another compute_dtype or device",
    )
