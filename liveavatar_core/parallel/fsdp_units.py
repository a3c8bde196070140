"""What sharding gathers at a time: the submodules of each part that are units of their own."""

from __future__ import annotations

import re

from torch import nn

BLOCKS = re.compile(r"(.*\.)?(blocks|block|layers)\.\d+")
"""A block of the transformer, of umt5 or of wav2vec2."""

FINE = re.compile(
    r"audio_injector\.(injector|injector_adain_layers)\.\d+"
    r"|text_embedding|time_embedding|time_projection|casual_audio_encoder|frame_packer"
    r"|encoder\.embed_tokens|wav2vec2\.feature_extractor"
)
"""Beyond the blocks: every injector and embedding."""

VAE = re.compile(r"encoder|decoder|quant_conv|post_quant_conv")
"""The parts of the VAE that the pipeline calls one by one; nothing is left for a root."""


def unit_paths(module: nn.Module, granularity: str) -> list[str]:
    """Paths of the units inside `module`, in their order there; what is left over belongs to the root.

    granularity: `blocks` takes every transformer block, `fine` every injector and embedding as well.
    """
    if hasattr(module, "post_quant_conv"):  # noqa: SIM108
        patterns = [VAE]
    else:
        patterns = [BLOCKS, FINE] if granularity == "fine" else [BLOCKS]
    return [name for name, _ in module.named_modules() if any(p.fullmatch(name) for p in patterns)]
