"""The weights and the tokenizer that a recipe names: a checkpoint's, or seeded values and bytes."""

from __future__ import annotations

from pathlib import Path

from liveavatar_core.config import Recipe
from liveavatar_core.encoders.text import Tokenizer
from liveavatar_core.errors import CheckpointError
from liveavatar_core.parallel.load import Weights, seeded_weights


def open_given(recipe: Recipe) -> tuple[Weights, Tokenizer | None]:
    """A source for each part, and the tokenizer; None: that of models without a vocabulary.

    Raises CheckpointError where files do not match the model, or are no longer those that the recipe declares.
    """
    if not recipe.weights.digest:
        return seeded_weights(recipe), None
    from liveavatar_core.weights.checkpoint import open_checkpoint, open_tokenizer, with_lora
    from liveavatar_core.weights.lora import read_lora

    deployment, directory = recipe.deployment, Path(recipe.weights.ckpt_dir)
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not on this machine", "put the checkpoint at the same place everywhere")
    weights = open_checkpoint(directory, recipe.model)
    if deployment.lora != "none":
        rank = deployment.lora_rank if deployment.lora == "adapter" else None
        weights = with_lora(weights, read_lora(Path(recipe.weights.lora_path_dmd)), deployment.lora, rank)
    return {str(name): source for name, source in weights.items()}, open_tokenizer(
        directory, recipe.model.transformer.text_len
    )
