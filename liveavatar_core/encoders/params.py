"""Dimensions of the text encoder, the audio encoder and the VAE. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextEncoderParams:
    """Dimensions of the umt5 encoder; defaults are umt5-xxl (transformers' UMT5Config names)."""

    vocab_size: int = 256384
    """Token ids."""
    d_model: int = 4096
    """Width of a token."""
    d_kv: int = 64
    """Width of a head."""
    d_ff: int = 10240
    """Inner width of the gated feed-forward."""
    num_layers: int = 24
    """Number of blocks."""
    num_heads: int = 64
    """Attention heads."""


@dataclass(frozen=True, kw_only=True)
class AudioEncoderParams:
    """Dimensions of wav2vec2; defaults are wav2vec2-large-xlsr-53 (transformers' Wav2Vec2Config names)."""

    hidden_size: int = 1024
    """Width of a frame."""
    num_hidden_layers: int = 24
    """Number of blocks."""
    num_attention_heads: int = 16
    """Attention heads."""
    intermediate_size: int = 4096
    """Inner width of the feed-forward."""
    conv_dim: tuple[int, ...] = (512,) * 7
    """Channels of the seven convolutions that turn 320 samples into one frame."""
    num_conv_pos_embeddings: int = 128
    """Kernel of the positional convolution."""
    num_conv_pos_embedding_groups: int = 16
    """Groups of the positional convolution."""


@dataclass(frozen=True, kw_only=True)
class VaeParams:
    """Dimensions of the causal video VAE; defaults are Wan2.1's (diffusers' AutoencoderKLWan)."""

    base_dim: int = 96
    """Channels at full resolution."""
    z_dim: int = 16
    """Latent channels."""
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Channels at each level, as multiples of base_dim."""
    num_res_blocks: int = 2
    """Residual blocks a level."""
    latents_mean: tuple[float, ...] | None = None
    """Mean of each latent channel; None takes Wan2.1's."""
    latents_std: tuple[float, ...] | None = None
    """Standard deviation of each latent channel; None takes Wan2.1's."""
