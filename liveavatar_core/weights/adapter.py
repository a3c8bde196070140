"""LoRA kept beside the weights: peft's layers in place of the linear ones that the published LoRA adapts."""

from __future__ import annotations

from peft import LoraConfig, inject_adapter_in_model
from torch import nn

ALPHA_PER_RANK = 0.5
"""The published LoRA has rank 128 and alpha 64."""
TARGETS = ("q", "k", "v", "o", "ffn.0", "ffn.2")
"""Ends of the dotted names of adapted layers."""


def add_adapters(transformer: nn.Module, rank: int) -> None:
    """Give every adapted linear layer of `transformer` its two factors, in place.

    The layer's own weights move to `<name>.base_layer`, the factors are `<name>.lora_{A,B}.default.weight`.
    """
    config = LoraConfig(r=rank, lora_alpha=ALPHA_PER_RANK * rank, target_modules=list(TARGETS))  # type: ignore[arg-type]
    inject_adapter_in_model(config, transformer)
