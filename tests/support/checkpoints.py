"""A small checkpoint in the published layout, and ways to break it."""

from __future__ import annotations

from pathlib import Path

import torch

from liveavatar_core.config import ModelParams
from liveavatar_core.encoders.params import AudioEncoderParams, TextEncoderParams, VaeParams
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.weights.checkpoint import (
    expected_shapes,
)
from liveavatar_core.weights.names import COMPONENTS
from liveavatar_core.weights.random import SeededSource

MODEL = ModelParams(
    transformer=TransformerParams(
        dim=32,
        ffn_dim=48,
        num_heads=2,
        num_layers=2,
        freq_dim=16,
        text_dim=16,
        text_len=8,
        audio_dim=16,
        audio_layers=4,
        audio_inject_layers=(0, 1),
    ),
    text_encoder=TextEncoderParams(vocab_size=260, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=3),
    audio_encoder=AudioEncoderParams(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    ),
    vae=VaeParams(base_dim=4),
)
SHARD_BYTES = 40_000


def seeded(dtype: torch.dtype = torch.bfloat16) -> dict:
    return {name: SeededSource(expected_shapes(name, MODEL), seed=3, dtype=dtype) for name in COMPONENTS}


def change_torch_file(path: Path, **changes: torch.Tensor | None) -> None:
    tensors = {**torch.load(path, weights_only=True), **changes}
    torch.save({name: x for name, x in tensors.items() if x is not None}, path)


def a_shard(folder: Path) -> Path:
    return next(path for path in sorted(folder.glob("diffusion_pytorch_model-*")))
