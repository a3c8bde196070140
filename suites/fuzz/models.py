"""Which model stands in for the 14B where a rule needs many runs. Free of torch."""

from __future__ import annotations

from dataclasses import replace

from liveavatar_core.config import ClipSpec, ModelParams, Quirks, Recipe
from liveavatar_core.recipes import miniature

PIXELS = 64 * 64
"""Pixels of a frame of the smallest video."""
AVATAR_FRAMES = ClipSpec().infer_frames
"""Video frames of the clips that the tiny avatar was taught in."""


def thin(recipe: Recipe) -> Recipe:
    """The 14B at full width with few layers: every tensor has its size, there are fewer of the same.

    What one layer holds does not depend on how many there are; shares of parts do.
    """
    model = recipe.model
    few = ModelParams(
        transformer=replace(model.transformer, num_layers=4, audio_inject_layers=(0, 2), audio_layers=3),
        text_encoder=replace(model.text_encoder, num_layers=3),
        audio_encoder=replace(model.audio_encoder, num_hidden_layers=2),
        vae=model.vae,
    )
    return replace(recipe, model=few)


def small(recipe: Recipe) -> Recipe:
    """The miniature with few layers and one or two of the smallest clips: what a process a rank makes in a second."""
    tiny = miniature(recipe)
    transformer = replace(tiny.model.transformer, num_layers=3, audio_inject_layers=(0, 2))
    text_encoder = replace(tiny.model.text_encoder, num_layers=2)
    clip = replace(
        tiny.clip,
        size="128*64" if recipe.clip.max_area > PIXELS * 50 else tiny.clip.size,
        infer_frames=min(recipe.clip.infer_frames, 28),
        num_clip=min(recipe.clip.num_clip, 2),
    )
    vae = replace(tiny.model.vae, num_res_blocks=1)
    model = replace(tiny.model, transformer=transformer, text_encoder=text_encoder, vae=vae)
    return replace(tiny, model=model, clip=clip)


def avatar_sized(recipe: Recipe) -> Recipe:
    """The tiny avatar's own size and length of clip, over the layout drawn: videos that baselines speak of."""
    tiny = miniature(recipe)
    clip = replace(tiny.clip, infer_frames=AVATAR_FRAMES, num_clip=min(recipe.clip.num_clip, 2), quirks=Quirks())
    return replace(tiny, clip=clip)


def exact(recipe: Recipe) -> Recipe:
    """The recipe in float32 throughout and rounded nowhere, so that only the order of sums differs."""
    layout = replace(
        recipe.deployment,
        storage_dtype="float32",
        compute_dtype="float32",
        fp8=False,
        fp8_multiply=True,
        int8=False,
        fp8_kv_cache=False,
    )
    return replace(recipe, deployment=layout)


def alone(recipe: Recipe) -> Recipe:
    """The recipe that makes the same video in one process that does nothing clever."""
    lora = recipe.deployment.lora
    plain = type(recipe.deployment)(
        storage_dtype=recipe.deployment.compute_dtype,
        compute_dtype=recipe.deployment.compute_dtype,
        lora=lora,
        lora_rank=recipe.deployment.lora_rank,
    )
    return replace(recipe, name="alone", deployment=plain)
