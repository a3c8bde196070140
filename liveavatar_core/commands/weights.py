"""Weights of a command: a checkpoint with its LoRA, or seeded random values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from liveavatar_core.config import Deployment, ModelParams, Recipe
from liveavatar_core.errors import BadInput
from liveavatar_core.recipes import TINY

SEEDED_MODELS = {"tiny": TINY, "14b": ModelParams()}
"""Models that can be tried without a checkpoint."""


def add_model_options(group: argparse._ArgumentGroup) -> None:
    """Declare where weights come from."""
    weights = group.add_mutually_exclusive_group(required=True)
    weights.add_argument("--ckpt_dir", type=Path, metavar="FOLDER", help="Wan2.2-S2V-14B, in its published layout.")
    weights.add_argument(
        "--seeded_weights",
        choices=tuple(SEEDED_MODELS),
        help="Random weights of that model instead: tries the whole chain, shows no face.",
    )
    group.add_argument(
        "--lora_path_dmd", type=Path, metavar="FILE", help="Live Avatar's LoRA; needed unless --lora none."
    )


def check_lora(options: argparse.Namespace, deployment: Deployment) -> None:
    """Refuse a LoRA that is declared and not given, or given and not used. Raises BadInput."""
    given = options.lora_path_dmd
    if options.seeded_weights and given:
        raise BadInput(f"{given} belongs to a checkpoint, not to seeded weights", "leave --lora_path_dmd out")
    if deployment.lora == "none" and given:
        raise BadInput(f"{given} would not be used with lora none", "leave out --lora none, or --lora_path_dmd")
    if options.ckpt_dir and deployment.lora != "none" and not given:
        raise BadInput(
            f"lora {deployment.lora} wants a LoRA file; none was given",
            "give --lora_path_dmd FILE, or --lora none",
        )


def read_model(options: argparse.Namespace) -> ModelParams:
    """Dimensions of the model that was chosen. Raises CheckpointError."""
    if options.seeded_weights:
        return SEEDED_MODELS[options.seeded_weights]
    from liveavatar_core.weights.layout import read_model_params

    return read_model_params(options.ckpt_dir)


def open_weights(options: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """Arguments `weights` and `tokenizer` of open_avatar; none for seeded weights. Raises CheckpointError."""
    if options.seeded_weights:
        return {}
    from liveavatar_core.weights.checkpoint import open_checkpoint, open_tokenizer, with_lora
    from liveavatar_core.weights.lora import read_lora

    weights = open_checkpoint(options.ckpt_dir, recipe.model)
    deployment = recipe.deployment
    if options.lora_path_dmd:
        rank = deployment.lora_rank if deployment.lora == "adapter" else None
        weights = with_lora(weights, read_lora(options.lora_path_dmd), deployment.lora, rank)
    tokenizer = open_tokenizer(options.ckpt_dir, recipe.model.transformer.text_len)
    return {"weights": weights, "tokenizer": tokenizer}
