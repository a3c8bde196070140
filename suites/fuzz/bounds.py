"""What a card must hold, worked out from the recipe alone: closed forms that know nothing of how it is run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from liveavatar_core.config import Recipe
from liveavatar_core.parallel.ranks import role_of

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class CacheBytes:
    """Keys and values, in bytes, of one rank."""

    caches: int
    """Bytes of the KV caches: all blocks that a clip has, over all noise levels of the rank."""
    sink: int
    """Bytes of the sink's keys and values (reference and motion), and of those of the prompt."""
    modulations: int
    """Bytes of what each layer makes of the schedule."""
    layer_read: int
    """Bytes of one layer of one cache, in the type that it is multiplied in."""


def cache_bytes(recipe: Recipe, rank: int) -> CacheBytes:
    """The bytes of keys and values on a rank that computes the transformer, in closed form."""
    model, layout, clip = recipe.model.transformer, recipe.deployment, recipe.clip
    height, width = (side // 16 for side in recipe.workload.output_size(clip.max_area))
    item, heads = BYTES[layout.compute_dtype], _heads(recipe, rank)
    tokens = clip.latent_frames_per_clip * height * width
    levels = 1 if layout.timestep_pipeline else clip.sample_steps
    a_token = heads * (model.head_dim + 4 if layout.fp8_kv_cache else model.head_dim * item)
    sink_tokens = 2 * height * width + (height // 2) * (width // 2) + 4 * (height // 4) * (width // 4)
    return CacheBytes(
        caches=levels * model.num_layers * 2 * tokens * a_token,
        sink=model.num_layers * 2 * (sink_tokens * heads * model.head_dim + model.text_len * model.dim) * item,
        modulations=model.num_layers * (clip.sample_steps + 1) * 6 * model.dim * 4,
        layer_read=2 * tokens * heads * model.head_dim * item,
    )


def _heads(recipe: Recipe, rank: int) -> int:
    """Attention heads of a rank: as even as can be, the first ranks having more."""
    least, more = divmod(recipe.model.transformer.num_heads, recipe.deployment.ulysses_size)
    return least + (rank < more)


def computing_ranks(recipe: Recipe) -> Iterator[int]:
    """The ranks that compute the transformer."""
    layout = recipe.deployment
    return (rank for rank in range(layout.num_cards) if role_of(layout, rank) != "decode")


def least_transformer_bytes(recipe: Recipe) -> float:
    """The least bytes of the transformer on a rank's card once it is loaded; 0 where it stands in host memory."""
    layout = recipe.deployment
    if layout.offload_model or layout.offload_blocks or layout.offload_shards:
        return 0
    shared = layout.shard != "none"
    item = 1 if layout.quantized else BYTES[layout.storage_dtype if shared else layout.compute_dtype]
    return _blocks_parameters(recipe) * item / (layout.num_gpus_dit if shared else 1)


def _blocks_parameters(recipe: Recipe) -> int:
    """The number of weights in blocks and audio injectors, which are most of it: matrices alone, without LoRA."""
    model = recipe.model.transformer
    attention, feed_forward = 4 * model.dim**2, 2 * model.dim * model.ffn_dim
    return model.num_layers * (2 * attention + feed_forward) + len(model.audio_inject_layers) * attention
