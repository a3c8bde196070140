"""One block of the transformer, and the two ways in which its tokens attend to one another.

Legend: B batch, l this rank's tokens, L all tokens, N = B*l, H all heads, h this rank's heads, D head width,
C token width, T rows of the schedule, S sink tokens, K text tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from liveavatar_core import scopes
from liveavatar_core.model.attention import attention, attention_over_both
from liveavatar_core.model.cache import Cache
from liveavatar_core.model.layers import GeluTanh
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.model.projections import AttentionProjections, CrossAttention
from liveavatar_core.model.rope import rotate
from liveavatar_core.model.sequence import SequenceLayout
from liveavatar_core.model.state import BlockRotary, LayerConstants, LayerState, Modulation

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What layers make their constants of."""

    time_T6C: Tensor
    """Projected time embedding of every row of the schedule; float32."""
    text_BKC: Tensor
    """Embedded prompt."""


Heard = tuple[Tensor, tuple[Tensor, Tensor] | None]
"""What tokens heard, and keys and values of the sink; None where whoever asked has them."""
Attend = Callable[[Tensor, Tensor, Tensor], Heard]
"""Queries, keys and values BHlD to what the tokens heard, BHlD."""


class SelfAttend(Protocol):
    """How a pass lets tokens attend: to what, and what it keeps."""

    @property
    def row(self) -> int:
        """The pass's row of the schedule."""

    @property
    def known(self) -> LayerConstants | Conditions:
        """What the layer made before, or what to make it of."""

    def __call__(self, q_BHlD: Tensor, k_BHlD: Tensor, v_BHlD: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The attention's output BHlD, and keys and values of the sink."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SinkAttend:
    """Sink tokens attend to one another; their keys (before rotation) and values are kept."""

    known: LayerConstants | Conditions
    """What SelfAttend describes, for another kind of block."""
    row: int
    """The row of t = 0."""
    rotary_SD: Tensor
    """Table of all sink tokens."""
    sequence: SequenceLayout
    """How tokens lie over ranks."""

    def __call__(self, q_BHlD: Tensor, k_BHlD: Tensor, v_BHlD: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What SelfAttend describes, for another kind of block."""
        num_heads, tokens = q_BHlD.shape[1], len(self.rotary_SD)
        q_BhSD, k_BhSD, v_BhSD = (self.sequence.to_heads(x, 1, tokens) for x in (q_BHlD, k_BHlD, v_BHlD))
        out_BhSD = attention(rotate(q_BhSD, self.rotary_SD), rotate(k_BhSD, self.rotary_SD), v_BhSD)
        with scopes.category("kv_cache"):
            kept = k_BhSD.clone(), v_BhSD.clone()
        return self.sequence.to_tokens(out_BhSD, 1, tokens, num_heads), kept


@dataclass(frozen=True, kw_only=True, eq=False)
class NoisyAttend:
    """Noisy tokens attend to the sink and, through the cache of their noise level, to all blocks so far."""

    layer: int
    """Number of the layer in the cache."""
    state: LayerState
    """What the layer keeps."""
    cache: Cache
    """Keys and values of earlier blocks at this noise level."""
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

    @property
    def known(self) -> LayerConstants:
        """What SelfAttend describes, for another kind of block."""
        return self.state.constants

    def __call__(self, q_BHlD: Tensor, k_BHlD: Tensor, v_BHlD: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What SelfAttend describes, for another kind of block."""
        num_heads, frames, table_LD = q_BHlD.shape[1], self.frames, self.rotary.noisy_LD
        tokens = len(table_LD) // frames
        q_BhLD, k_BhLD, v_BhLD = (self.sequence.to_heads(x, frames, tokens) for x in (q_BHlD, k_BHlD, v_BHlD))
        self.cache.write(self.layer, rotate(k_BhLD, table_LD), v_BhLD, self.start)
        out_BhLD = attention_over_both(
            rotate(q_BhLD, table_LD),
            self.cache.read(self.layer, self.visible),
            (rotate(self.state.sink_k_BHSD, self.rotary.sink_SD), self.state.sink_v_BHSD),
        )
        kept = self.state.sink_k_BHSD, self.state.sink_v_BHSD
        return self.sequence.to_tokens(out_BhLD, frames, tokens, num_heads), kept


class SelfAttention(AttentionProjections):
    """Attention of the tokens among themselves, in the way of the pass."""

    def forward(self, x_NC: Tensor, batch: int, attend: Attend) -> Heard:
        """What the tokens heard, NC, and keys and values of the sink."""
        out_BHlD, sink = attend(self.queries(x_NC, batch), *self.keys_values(x_NC, batch))
        return self.output(out_BHlD), sink


class TransformerBlock(nn.Module):
    """Self-attention, text attention and feed-forward; the residual is float32 within a block."""

    compiled: Callable[..., Tensor] | None = None
    """`mix` of a noisy pass as one graph, given the block itself first; see compiled_blocks."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        dim = params.dim
        self.self_attn = SelfAttention(params)
        self.norm3 = nn.LayerNorm(dim, eps=EPS)
        self.cross_attn = CrossAttention(params)
        self.ffn = nn.Sequential(nn.Linear(dim, params.ffn_dim), GeluTanh(), nn.Linear(params.ffn_dim, dim))
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))

    def forward(self, x: Tensor, attend: SelfAttend) -> tuple[Tensor, LayerState]:
        """Tokens [B, ..., C] after the block, shape and dtype kept, and what the layer keeps."""
        constants = attend.known if isinstance(attend.known, LayerConstants) else self._constants(attend.known)
        given = x, constants.modulations[attend.row], constants.text_k_BHKD, constants.text_v_BHKD
        if self.compiled is not None and isinstance(attend, NoisyAttend):
            sink = attend.state.sink_k_BHSD, attend.state.sink_v_BHSD
            return self.compiled(self, *given, attend), LayerState.of(constants, sink)
        mixed, made = self.mix(*given, attend)
        assert made is not None
        return mixed, LayerState.of(constants, made)

    def mix(self, x: Tensor, modulation: Modulation, text_k_BHKD: Tensor, text_v_BHKD: Tensor, attend: Attend) -> Heard:
        """Tokens after the block. What differs from pass to pass are tensors, or hidden behind `attend`."""
        residual_NC = x.flatten(0, -2).float()
        normed = _modulated(residual_NC, modulation.scale, modulation.shift).to(x.dtype)
        heard, sink = self.self_attn(normed, len(x), attend)
        residual_NC = torch.addcmul(residual_NC, heard, modulation.gate)
        normed = self.norm3(residual_NC.to(x.dtype))
        residual_NC = residual_NC + self.cross_attn(normed, text_k_BHKD, text_v_BHKD)
        fed = self.ffn(_modulated(residual_NC, modulation.ffn_scale, modulation.ffn_shift).to(x.dtype))
        return torch.addcmul(residual_NC, fed, modulation.ffn_gate).to(x.dtype).view(x.shape), sink

    def _constants(self, conditions: Conditions) -> LayerConstants:
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (self.modulation.float() + conditions.time_T6C).unbind(
            dim=1
        )
        rows = zip(shift, scale + 1, gate, ffn_shift, ffn_scale + 1, ffn_gate, strict=True)
        text_BKC = conditions.text_BKC
        with scopes.category("kv_cache"):
            text_k_BHKD, text_v_BHKD = self.cross_attn.keys_values(text_BKC.flatten(0, 1), len(text_BKC))
        return LayerConstants(
            modulations=tuple(Modulation(*row) for row in rows),
            text_k_BHKD=text_k_BHKD,
            text_v_BHKD=text_v_BHKD,
        )


def _modulated(x_NC: Tensor, scale_C: Tensor, shift_C: Tensor) -> Tensor:
    """Layer norm whose weight and bias come from the timestep."""
    return F.layer_norm(x_NC, (x_NC.shape[-1],), scale_C, shift_C, EPS)
