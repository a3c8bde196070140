"""What every attention of the model has: queries, keys and values out of tokens, normed, and the way back.

Legend: B batch, L query tokens, T key tokens, N = B*L or B*T tokens, H heads, D head width, C token width.
Tokens are flat (NC) where a product follows: a matrix needs no reshaping around it.
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
        self.dim, self.num_heads = params.dim, params.num_heads
        self.q = nn.Linear(params.dim, params.dim)
        self.k = nn.Linear(params.dim, params.dim)
        self.v = nn.Linear(params.dim, params.dim)
        self.o = nn.Linear(params.dim, params.dim)
        self.norm_q = RMSNorm(params.dim)
        self.norm_k = RMSNorm(params.dim)

    def queries(self, x_NC: Tensor, batch: int) -> Tensor:
        """Normed queries, BHLD."""
        return self._heads(self.norm_q(self.q(x_NC)), batch)

    def keys_values(self, x_NC: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Normed keys and values, each BHTD."""
        return self._heads(self.norm_k(self.k(x_NC)), batch), self._heads(self.v(x_NC), batch)

    def output(self, out_BHLD: Tensor) -> Tensor:
        """Heads joined and projected, NC."""
        return self.o(out_BHLD.transpose(1, 2).reshape(-1, self.dim))

    def _heads(self, x_NC: Tensor, batch: int) -> Tensor:
        return x_NC.view(batch, -1, self.num_heads, self.dim // self.num_heads).transpose(1, 2)


class CrossAttention(AttentionProjections):
    """Tokens attend to keys and values made before; the text's, by `keys_values`, in a prefill."""

    def forward(self, x_NC: Tensor, k_BHTD: Tensor, v_BHTD: Tensor) -> Tensor:
        """What the tokens heard, NC."""
        return self.output(attention(self.queries(x_NC, len(k_BHTD)), k_BHTD, v_BHTD))
