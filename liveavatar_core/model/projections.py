"""What every attention of the model has: projections to queries, keys, values and back, with normed queries and keys.

Legend: B batch, L query tokens, T key tokens, H heads, D head width, C token width.
"""

from __future__ import annotations

from torch import Tensor, nn

from liveavatar_core.model.attention import attention
from liveavatar_core.model.layers import RMSNorm
from liveavatar_core.model.params import TransformerParams


class AttentionProjections(nn.Module):
    """Base of self-, text- and audio-attention. Norms run over the whole width, before heads are split."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        self.num_heads = params.num_heads
        self.q = nn.Linear(params.dim, params.dim)
        self.k = nn.Linear(params.dim, params.dim)
        self.v = nn.Linear(params.dim, params.dim)
        self.o = nn.Linear(params.dim, params.dim)
        self.norm_q = RMSNorm(params.dim)
        self.norm_k = RMSNorm(params.dim)

    def queries(self, x_BLC: Tensor) -> Tensor:
        """Normed queries, BLHD."""
        return self.norm_q(self.q(x_BLC)).unflatten(-1, (self.num_heads, -1))

    def keys_values(self, x_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Normed keys and values, each BTHD."""
        k_BTHD = self.norm_k(self.k(x_BTC)).unflatten(-1, (self.num_heads, -1))
        return k_BTHD, self.v(x_BTC).unflatten(-1, (self.num_heads, -1))

    def cross(self, x_BLC: Tensor, k_BTHD: Tensor, v_BTHD: Tensor) -> Tensor:
        """Attention of `x` over keys and values made before, projected back: BLC."""
        return self.o(attention(self.queries(x_BLC), k_BTHD, v_BTHD).flatten(2))
