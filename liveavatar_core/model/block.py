"""One block of the transformer, and the two ways in which its tokens attend to one another.

Legend: B batch, l this rank's tokens, L all tokens, H all heads, h this rank's heads, D head width, C token width,
T rows of the schedule, N sink tokens, K text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from liveavatar_core import scopes
from liveavatar_core.model.attention import attention, attention_over_both
from liveavatar_core.model.cache import Cache
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.model.projections import AttentionProjections
from liveavatar_core.model.rope import Rotary, rotate
from liveavatar_core.model.sequence import SequenceLayout
from liveavatar_core.model.state import BlockRotary, LayerConstants, LayerState

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What layers make their constants of."""

    time_T6C: Tensor
    """Projected time embedding of every row of the schedule; float32."""
    text_BKC: Tensor
    """Embedded prompt."""


class SelfAttend(Protocol):
    """How a pass lets tokens attend: to what, and what it keeps."""

    row: int
    """The pass's row of the schedule."""

    def constants(self) -> LayerConstants | Conditions:
        """What the layer made before, or what to make it of."""

    def __call__(
        self, q_BlHD: Tensor, k_BlHD: Tensor, v_BlHD: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns the attention's output BlHD, and keys and values of the sink."""


@dataclass(frozen=True, kw_only=True)
class SinkAttend:
    """Sink tokens attend to one another; their keys (before rotation) and values are kept."""

    known: LayerConstants | Conditions
    """See SelfAttend.constants."""
    row: int
    """The row of t = 0."""
    rotary: Rotary
    """Of all sink tokens."""
    sequence: SequenceLayout
    """How tokens lie over ranks."""

    def constants(self) -> LayerConstants | Conditions:
        """See SelfAttend."""
        return self.known

    def __call__(
        self, q_BlHD: Tensor, k_BlHD: Tensor, v_BlHD: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """See SelfAttend."""
        heads, tokens = q_BlHD.shape[2], self.rotary.cos_N1D.shape[0]
        q_BNhD, k_BNhD, v_BNhD = (self.sequence.to_heads(x, 1, tokens) for x in (q_BlHD, k_BlHD, v_BlHD))
        out_BNhD = attention(rotate(q_BNhD, self.rotary), rotate(k_BNhD, self.rotary), v_BNhD)
        with scopes.category("kv_cache"):
            kept = k_BNhD.clone(), v_BNhD.clone()
        return self.sequence.to_tokens(out_BNhD, 1, tokens, heads), kept


@dataclass(frozen=True, kw_only=True)
class NoisyAttend:
    """Noisy tokens attend to their own and earlier blocks through the cache of their noise level, and to the sink."""

    layer: int
    """Number of the layer in the cache."""
    state: LayerState
    """What the layer keeps."""
    cache: Cache
    """Of this noise level."""
    row: int
    """Row of the schedule."""
    frames: int
    """Latent frames of the block."""
    start: int
    """First token of the block in the cache."""
    visible: int
    """Tokens of the cache that hold something."""
    rotary: BlockRotary
    """Tables of the block."""
    sequence: SequenceLayout
    """How tokens lie over ranks."""

    def constants(self) -> LayerConstants | Conditions:
        """See SelfAttend."""
        return self.state.constants

    def __call__(
        self, q_BlHD: Tensor, k_BlHD: Tensor, v_BlHD: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """See SelfAttend."""
        heads, tokens = q_BlHD.shape[2], self.rotary.noisy.cos_N1D.shape[0] // self.frames
        q_BLhD, k_BLhD, v_BLhD = (
            self.sequence.to_heads(x, self.frames, tokens) for x in (q_BlHD, k_BlHD, v_BlHD)
        )
        self.cache.write(self.layer, rotate(k_BLhD, self.rotary.noisy), v_BLhD, self.start)
        sink = self.state.sink_k_BNHD, self.state.sink_v_BNHD
        out_BLhD = attention_over_both(
            rotate(q_BLhD, self.rotary.noisy),
            self.cache.read(self.layer, self.visible),
            (rotate(sink[0], self.rotary.sink), sink[1]),
        )
        return self.sequence.to_tokens(out_BLhD, self.frames, tokens, heads), sink


class SelfAttention(AttentionProjections):
    """Attention of the tokens among themselves, in the way of the pass."""

    def forward(self, x_BlC: Tensor, attend: SelfAttend) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns BlC, and keys and values of the sink."""
        out_BlHD, sink = attend(self.queries(x_BlC), *self.keys_values(x_BlC))
        return self.o(out_BlHD.flatten(2)), sink


class TransformerBlock(nn.Module):
    """Self-attention, text attention and feed-forward; the residual is float32 within a block."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        dim = params.dim
        self.self_attn = SelfAttention(params)
        self.norm3 = nn.LayerNorm(dim, eps=EPS)
        self.cross_attn = AttentionProjections(params)
        self.ffn = nn.Sequential(
            nn.Linear(dim, params.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(params.ffn_dim, dim)
        )
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))

    def forward(self, x_BlC: Tensor, attend: SelfAttend) -> tuple[Tensor, LayerState]:
        """Tokens after the block, in their dtype, and what the layer keeps."""
        constants = self._constants(attend.constants())
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = constants.modulation_T6C[attend.row].unbind()
        dtype, residual = x_BlC.dtype, x_BlC.float()
        heard, sink = self.self_attn(_modulated(residual, scale, shift).to(dtype), attend)
        residual = torch.addcmul(residual, heard, gate)
        heard = self.cross_attn.cross(
            self.norm3(residual.to(dtype)), constants.text_k_BKHD, constants.text_v_BKHD
        )
        residual = residual + heard
        fed = self.ffn(_modulated(residual, ffn_scale, ffn_shift).to(dtype))
        state = LayerState(constants=constants, sink_k_BNHD=sink[0], sink_v_BNHD=sink[1])
        return torch.addcmul(residual, fed, ffn_gate).to(dtype), state

    def _constants(self, known: LayerConstants | Conditions) -> LayerConstants:
        if isinstance(known, LayerConstants):
            return known
        modulation_T6C = self.modulation.float() + known.time_T6C
        ones = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0], device=modulation_T6C.device).unsqueeze(-1)
        with scopes.category("kv_cache"):
            text_k_BKHD, text_v_BKHD = self.cross_attn.keys_values(known.text_BKC)
        return LayerConstants(
            modulation_T6C=modulation_T6C + ones, text_k_BKHD=text_k_BKHD, text_v_BKHD=text_v_BKHD
        )


def _modulated(x_BlC: Tensor, scale_C: Tensor, shift_C: Tensor) -> Tensor:
    """Layer norm whose weight and bias come from the timestep."""
    return F.layer_norm(x_BlC, (x_BlC.shape[-1],), scale_C, shift_C, EPS)
