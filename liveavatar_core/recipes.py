"""Named setups: what has been published about running the 14B, and its miniature twin. Free of torch."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from liveavatar_core.config import ClipSpec, ModelParams, Recipe
from liveavatar_core.deployment import SHORTEST_AUDIO_WINDOW_SECONDS, Deployment
from liveavatar_core.encoders.params import AudioEncoderParams, TextEncoderParams, VaeParams
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.params import TransformerParams

TINY = ModelParams(
    transformer=TransformerParams(
        dim=128,
        ffn_dim=352,
        num_heads=8,
        num_layers=12,
        freq_dim=32,
        text_dim=128,
        text_len=64,
        audio_dim=32,
        audio_inject_layers=(0, 3, 6, 9),
    ),
    text_encoder=TextEncoderParams(vocab_size=8200, d_model=128, d_kv=16, d_ff=448, num_layers=8, num_heads=8),
    audio_encoder=AudioEncoderParams(
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    ),
    vae=VaeParams(base_dim=6),
)
"""The 14B's architecture, some 3000 times smaller: small enough for git in bfloat16 (15 MB), and trainable on a CPU.

Shares of parts are about those of the 14B; the vocabulary is larger than bytes need, so that gathering the text
embedding weighs what it weighs there. The decoder works at full resolution and so weighs more."""


def published_sharded(cards: int) -> Recipe:
    """Everything in float32, LoRA beside it, sharded over all cards parameter by parameter; nothing freed."""
    return Recipe(
        name="published_sharded",
        clip=ClipSpec(size="688*368"),
        deployment=Deployment(
            num_gpus_dit=cards,
            ulysses_size=cards,
            shard="per_parameter",
            shard_scope="everything",
            shard_units="fine",
            storage_dtype="float32",
            lora="adapter",
            offload_kv_cache=True,
        ),
    )


def published_replicated(cards: int) -> Recipe:
    """The original's multi-card script: the transformer in flat shards over all cards but one, all else on each."""
    return Recipe(
        name="published_replicated",
        clip=ClipSpec(size="688*368"),
        deployment=Deployment(
            num_gpus_dit=cards - 1,
            ulysses_size=cards - 1,
            enable_vae_parallel=True,
            shard="flat",
            shard_units="blocks",
        ),
    )


def timestep_pipeline(cards: int) -> Recipe:
    """The original's layout for many 80 GB cards: each computes one denoising step, the last one decodes.

    Every transformer rank holds the whole transformer and the one KV cache of its noise level; blocks pass through.
    """
    return Recipe(
        name="timestep_pipeline",
        clip=ClipSpec(size="704*384", sample_steps=cards - 1),
        deployment=Deployment(num_gpus_dit=cards - 1, timestep_pipeline=True, enable_vae_parallel=True),
    )


def single(cards: int) -> Recipe:
    """One card holds everything in bfloat16; the parts that rest stand in host memory."""
    if cards != 1:
        raise InvalidRecipe(f"recipe single runs on 1 card, not {cards}", "choose published_sharded or a remedy")
    return Recipe(name="single", clip=ClipSpec(size="704*384"), deployment=Deployment(offload_model=True))


def bf16_sharded(cards: int) -> Recipe:
    """published_sharded in half the bytes: stored in bfloat16, the LoRA merged. Same arithmetic, same collectives."""
    published = published_sharded(cards)
    layout = replace(published.deployment, storage_dtype="bfloat16", lora="merged")
    return replace(published, name="bf16_sharded", deployment=layout)


def encoders_freed(cards: int) -> Recipe:
    """published_replicated that gives up its encoders once they have worked; KV caches in host memory.

    While they work they leave half a GiB of a 24 GB card over four: too little to encode 60 s of voice at once.
    """
    window = SHORTEST_AUDIO_WINDOW_SECONDS
    return _replicated(cards, "encoders_freed", free_encoders=True, offload_kv_cache=True, audio_window_seconds=window)


def encoders_on_host(cards: int) -> Recipe:
    """published_replicated with the text encoder in host memory; KV caches too."""
    return _replicated(cards, "encoders_on_host", t5_cpu=True, offload_kv_cache=True)


def text_on_decode_rank(cards: int) -> Recipe:
    """published_replicated with the text encoder on the decode rank alone; KV caches in host memory."""
    return _replicated(cards, "text_on_decode_rank", t5_on_decode_rank=True, offload_kv_cache=True)


def _replicated(cards: int, name: str, **changes: Any) -> Recipe:
    published = published_replicated(cards)
    return replace(published, name=name, deployment=replace(published.deployment, **changes))


def fp8_ulysses(cards: int) -> Recipe:
    """Every card holds the whole transformer in float8, so that nothing is gathered; text encoder and caches rest."""
    layout = Deployment(num_gpus_dit=cards, ulysses_size=cards, fp8=True, offload_kv_cache=True, t5_cpu=True)
    return Recipe(name="fp8_ulysses", clip=ClipSpec(size="688*368"), deployment=layout)


def fp8(cards: int) -> Recipe:
    """One card: the transformer and its KV caches in float8, encoders in host memory when they rest."""
    return _alone(cards, "fp8", fp8=True, fp8_kv_cache=True)


def fp8_offload(cards: int) -> Recipe:
    """One card: the transformer in float8, KV caches in host memory."""
    return _alone(cards, "fp8_offload", fp8=True, offload_kv_cache=True)


def block_offload(cards: int) -> Recipe:
    """One card that sees two blocks at a time, full precision; all else that rests stands in host memory."""
    return _alone(cards, "block_offload", offload_blocks=True, offload_kv_cache=True)


def block_offload_fp8(cards: int) -> Recipe:
    """block_offload with float8 weights: half as much to bring over, and to keep in host memory."""
    return _alone(cards, "block_offload_fp8", offload_blocks=True, offload_kv_cache=True, fp8=True)


def block_offload_int8(cards: int) -> Recipe:
    """block_offload with 8-bit integer weights, which any card can multiply in bfloat16."""
    return _alone(cards, "block_offload_int8", offload_blocks=True, offload_kv_cache=True, int8=True)


def _alone(cards: int, name: str, **changes: Any) -> Recipe:
    one = single(cards)
    return replace(one, name=name, deployment=replace(one.deployment, **changes))


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "published_sharded": published_sharded,
    "published_replicated": published_replicated,
    "timestep_pipeline": timestep_pipeline,
    "single": single,
    "bf16_sharded": bf16_sharded,
    "encoders_freed": encoders_freed,
    "encoders_on_host": encoders_on_host,
    "text_on_decode_rank": text_on_decode_rank,
    "fp8_ulysses": fp8_ulysses,
    "fp8": fp8,
    "fp8_offload": fp8_offload,
    "block_offload": block_offload,
    "block_offload_fp8": block_offload_fp8,
    "block_offload_int8": block_offload_int8,
}
"""Recipe makers by name; each takes the number of cards."""


def named_recipe(name: str, cards: int) -> Recipe:
    """The recipe of that name over `cards` cards. Raises InvalidRecipe for an unknown name."""
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1) or sorted(RECIPES)
        raise InvalidRecipe(f"there is no recipe {name!r}", f"use one of: {', '.join(close)}")
    return RECIPES[name](cards)


def miniature(recipe: Recipe) -> Recipe:
    """The layout of a recipe over the tiny model, at a size that takes seconds on a CPU."""
    return replace(
        recipe,
        model=TINY,
        clip=replace(recipe.clip, size="64*64"),
        deployment=replace(recipe.deployment, lora_rank=4),
    )
