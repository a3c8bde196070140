"""Names of weights: as published <-> as in this project's modules. Rules, no tables of a thousand keys.

A rule replaces one part of a name; `/` stands for the start of the name. Read forwards the rules give the
module's name, read backwards the published one, so a rule comes before those that would undo it on the way
back.
"""

from __future__ import annotations

import re
from typing import Literal

Component = Literal["transformer", "text_encoder", "audio_encoder", "vae"]
COMPONENTS: tuple[Component, ...] = ("transformer", "text_encoder", "audio_encoder", "vae")

_Rules = tuple[tuple[str, str], ...]

_TEXT_ENCODER: _Rules = (
    ("/blocks.", "/encoder.block."),
    ("/token_embedding.", "/encoder.embed_tokens."),
    ("/norm.", "/encoder.final_layer_norm."),
    (".norm1.", ".layer.0.layer_norm."),
    (".norm2.", ".layer.1.layer_norm."),
    (".attn.", ".layer.0.SelfAttention."),
    (".pos_embedding.embedding.", ".layer.0.SelfAttention.relative_attention_bias."),
    (".ffn.gate.0.", ".layer.1.DenseReluDense.wi_0."),
    (".ffn.fc1.", ".layer.1.DenseReluDense.wi_1."),
    (".ffn.fc2.", ".layer.1.DenseReluDense.wo."),
)

_AUDIO_ENCODER: _Rules = (
    (".pos_conv_embed.conv.weight_g", ".pos_conv_embed.conv.parametrizations.weight.original0"),
    (".pos_conv_embed.conv.weight_v", ".pos_conv_embed.conv.parametrizations.weight.original1"),
)
"""Weight norm was renamed in torch 2.0; checkpoints have either name."""

_VAE: _Rules = (
    ("/conv1.", "/quant_conv."),
    ("/conv2.", "/post_quant_conv."),
    ("coder.conv1.", "coder.conv_in."),
    (".head.0.", ".norm_out."),
    (".head.2.", ".conv_out."),
    (".middle.0.", ".mid_block.resnets.0."),
    (".middle.1.", ".mid_block.attentions.0."),
    (".middle.2.", ".mid_block.resnets.1."),
    (".downsamples.", ".down_blocks."),
    (".residual.0.", ".norm1."),
    (".residual.2.", ".conv1."),
    (".residual.3.", ".norm2."),
    (".residual.6.", ".conv2."),
    (".shortcut.", ".conv_shortcut."),
)

_RULES: dict[Component, _Rules] = {
    "transformer": (),
    "text_encoder": _TEXT_ENCODER,
    "audio_encoder": _AUDIO_ENCODER,
    "vae": _VAE,
}

_UPSAMPLER = 3
"""Place of the upsampler in a level of the VAE's decoder, behind three residual blocks."""


def module_name(component: Component, published: str) -> str | None:
    """The module's name of a published weight; None for one that it does without (wav2vec2's CTC head)."""
    if component == "audio_encoder" and published.startswith("lm_head."):
        return None
    name = "/" + published
    for old, new in _RULES[component]:
        name = name.replace(old, new)
    return _levels(name.removeprefix("/"))


def published_name(component: Component, name: str) -> str:
    """The published name of a module's weight; the inverse of `module_name`."""
    published = "/" + _flat(name)
    for old, new in reversed(_RULES[component]):
        published = published.replace(new, old)
    return published.removeprefix("/")


def _levels(name: str) -> str:
    """`upsamples.5.` -> `up_blocks.1.resnets.1.`: the published VAE numbers its levels through."""

    def level(found: re.Match[str]) -> str:
        block, place = divmod(int(found[1]), _UPSAMPLER + 1)
        part = "upsamplers.0" if place == _UPSAMPLER else f"resnets.{place}"
        return f"up_blocks.{block}.{part}."

    return re.sub(r"upsamples\.(\d+)\.", level, name)


def _flat(name: str) -> str:
    """The inverse of `_levels`."""

    def index(found: re.Match[str]) -> str:
        place = _UPSAMPLER if found[2] == "upsamplers" else int(found[3])
        return f"upsamples.{int(found[1]) * (_UPSAMPLER + 1) + place}."

    return re.sub(r"up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.", index, name)
