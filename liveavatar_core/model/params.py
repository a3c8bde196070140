"""Dimensions of the transformer. Free of torch, so that recipes can be read without it."""

from __future__ import annotations

from dataclasses import dataclass

from liveavatar_core.errors import InvalidRecipe


@dataclass(frozen=True, kw_only=True)
class TransformerParams:
    """Dimensions of the causal speech-to-video transformer; names as in the checkpoint's config.json."""

    dim: int = 5120
    """Width of a token."""
    ffn_dim: int = 13824
    """Inner width of a block's feed-forward."""
    num_heads: int = 40
    """Attention heads; dim / num_heads is the width of one and must be even."""
    num_layers: int = 40
    """Number of blocks."""
    in_dim: int = 16
    """Latent channels in."""
    out_dim: int = 16
    """Latent channels out."""
    cond_dim: int = 16
    """Channels of the pose latents (zero without a pose video)."""
    freq_dim: int = 256
    """Width of the sinusoidal time embedding."""
    text_dim: int = 4096
    """Width of the text encoder's output."""
    text_len: int = 512
    """Text tokens that every block attends to, padding included."""
    audio_dim: int = 1024
    """Width of one audio encoder layer."""
    audio_layers: int = 25
    """Hidden states that the audio encoder hands over (its layers and its input)."""
    num_audio_token: int = 4
    """Audio tokens for each latent frame, without the padding token."""
    audio_inject_layers: tuple[int, ...] = (0, 4, 8, 12, 16, 20, 24, 27, 30, 33, 36, 39)
    """Blocks after which audio is injected; injector j belongs to the j-th entry."""

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise InvalidRecipe(
                f"dim {self.dim} over {self.num_heads} heads is {self.dim / self.num_heads:g}; must be even",
                "choose num_heads so that dim / num_heads is an even number",
            )
        if any(not 0 <= layer < self.num_layers for layer in self.audio_inject_layers):
            raise InvalidRecipe(
                f"audio_inject_layers {self.audio_inject_layers} reach beyond the {self.num_layers} blocks",
                "keep every entry between 0 and num_layers - 1",
            )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.num_heads
