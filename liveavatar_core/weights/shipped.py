"""The tiny avatar that ships: weights of recipes.TINY that really make a portrait talk, trained by `training`."""

from __future__ import annotations

from liveavatar_core.config import Recipe
from liveavatar_core.recipes import TINY
from liveavatar_core.shipped_files import ASSETS
from liveavatar_core.weights.checkpoint import open_checkpoint, with_lora
from liveavatar_core.weights.lora import read_lora
from liveavatar_core.weights.source import WeightSource

FOLDER = ASSETS / "tiny_avatar"
"""The checkpoint, in the published layout."""
LORA = FOLDER / "liveavatar.safetensors"
"""The LoRA of the tiny avatar, which makes four steps enough."""


def shipped_weights(recipe: Recipe) -> dict[str, WeightSource]:
    """A source for every part of the tiny avatar, with the LoRA as the recipe has it. Raises CheckpointError."""
    weights, deployment = open_checkpoint(FOLDER, TINY), recipe.deployment
    if deployment.lora != "none":
        rank = deployment.lora_rank if deployment.lora == "adapter" else None
        weights = with_lora(weights, read_lora(LORA), deployment.lora, rank)
    return {str(part): source for part, source in weights.items()}
