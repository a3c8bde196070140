"""Audio: a causal encoder from feature layers to tokens, and their injection into the picture's tokens.

Legend: B batch, A audio layers, E audio width, T video frames, F latent frames, S tokens of a frame, K audio
tokens of a latent frame (padding token included), C token width, N sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from liveavatar_core.model.layers import Float32Conv1d, Float32Linear
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.model.projections import CrossAttention


class CausalConv1d(nn.Module):
    """Convolution of width 3 that sees the past only; the first frame is held before the start. float32."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = Float32Conv1d(channels_in, channels_out, kernel_size=3, stride=stride)

    def forward(self, x_NTC: Tensor) -> Tensor:
        """[N, T, channels_in] to [N, ceil(T / stride), channels_out]."""
        x_NCT = F.pad(x_NTC.transpose(1, 2), (2, 0), mode="replicate")
        return self.conv(x_NCT).transpose(1, 2)


class AudioTokenEncoder(nn.Module):
    """Four video frames to one latent frame: local tokens, a padding token, one global token."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        quarter, dim = params.dim // 4, params.dim
        self.groups = params.num_audio_token
        self.conv1_local = CausalConv1d(params.audio_dim, quarter * self.groups)
        self.conv1_global = CausalConv1d(params.audio_dim, quarter)
        self.conv2 = CausalConv1d(quarter, dim // 2, stride=2)
        self.conv3 = CausalConv1d(dim // 2, dim, stride=2)
        self.final_linear = Float32Linear(dim, dim)
        self.padding_tokens = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x_BTE: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the global tokens BF1C and the local ones BFKC."""
        groups_NTC = self.conv1_local(x_BTE).unflatten(-1, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
        local_BFKC = self._trunk(groups_NTC).unflatten(0, (-1, self.groups)).transpose(1, 2)
        padding = self.padding_tokens.float().expand(*local_BFKC.shape[:2], 1, -1)
        global_BFC = self.final_linear(self._trunk(self.conv1_global(x_BTE)))
        return global_BFC.unsqueeze(2), torch.cat([local_BFKC, padding], dim=2)

    def _trunk(self, x_NTC: Tensor) -> Tensor:
        for conv in (self.conv2, self.conv3):
            x_NTC = conv(_norm_silu(x_NTC))
        return _norm_silu(x_NTC)


class CausalAudioEncoder(nn.Module):
    """Weighs the audio encoder's layers into one and makes tokens of it. float32 throughout."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((1, params.audio_layers, 1, 1), 0.01))
        self.encoder = AudioTokenEncoder(params)

    def forward(self, features_BAET: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the global tokens [B, F, 1, C] and the local ones [B, F, K, C], F = ceil(T / 4)."""
        weights = F.silu(self.weights.float())
        mixed_BET = (features_BAET.float() * weights).sum(dim=1) / weights.sum()
        return self.encoder(mixed_BET.transpose(1, 2))


class AudioAdaptiveNorm(nn.Module):
    """Shift and scale that the global token gives to the tokens of its latent frame."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        self.linear = nn.Linear(params.dim, 2 * params.dim)

    def forward(self, global_BF1C: Tensor) -> tuple[Tensor, Tensor]:
        """Returns shift and 1 + scale, each BF1C."""
        shift, scale = self.linear(F.silu(global_BF1C)).chunk(2, dim=-1)
        return shift, scale + 1


class AudioInjection:
    """What one injector needs of a block's audio; keys and values [B*F, H, K, D] come with its first use."""

    def __init__(self, local_BFKC: Tensor, shift_BF1C: Tensor, scale_BF1C: Tensor) -> None:
        self.local_BFKC = local_BFKC
        self.shift_BF1C, self.scale_BF1C = shift_BF1C, scale_BF1C
        self.keys_values: tuple[Tensor, Tensor] | None = None


class AudioCrossAttention(CrossAttention):
    """Lets the tokens of a latent frame attend to its audio tokens."""

    def forward(self, x_BFSC: Tensor, injection: AudioInjection) -> Tensor:  # type: ignore[override]
        """`x` with what it heard added; same shape."""
        if injection.keys_values is None:
            batch, frames = x_BFSC.shape[:2]
            injection.keys_values = self.keys_values(injection.local_BFKC.flatten(0, 2), batch * frames)
        normed = F.layer_norm(x_BFSC, (x_BFSC.shape[-1],), eps=1e-5)
        adapted_BFSC = torch.addcmul(injection.shift_BF1C, normed, injection.scale_BF1C)
        heard_NC = super().forward(adapted_BFSC.flatten(0, 2), *injection.keys_values)
        return x_BFSC + heard_NC.view(x_BFSC.shape)


class AudioInjector(nn.Module):
    """One attention and one adaptive norm for each entry of `audio_inject_layers`; called one by one."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        layers = params.audio_inject_layers
        self.injector = nn.ModuleList(AudioCrossAttention(params) for _ in layers)
        self.injector_adain_layers = nn.ModuleList(AudioAdaptiveNorm(params) for _ in layers)


def _norm_silu(x_NTC: Tensor) -> Tensor:
    return F.silu(F.layer_norm(x_NTC, (x_NTC.shape[-1],), eps=1e-6))
