"""Weights of a command: a checkpoint with its LoRA, seeded random values, or the tiny avatar that ships."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from liveavatar_core.config import ModelParams, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadInput
from liveavatar_core.recipes import TINY

SEEDED_MODELS = {"tiny": TINY, "14b": ModelParams()}
"""Models that can be tried without a checkpoint."""

SHIPPED_SIZE = "64*64"
"""What the tiny avatar was trained at, and so the default of --size with it."""


def add_model_options(group: argparse._ArgumentGroup) -> None:
    """Declare where weights come from."""
    weights = group.add_mutually_exclusive_group()
    weights.add_argument(
        "--ckpt_dir",
        type=Path,
        metavar="FOLDER",
        help="Wan2.2-S2V-14B, in its published layout. (default: the tiny avatar that ships, at "
        f"--size {SHIPPED_SIZE})",
    )
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
    if given and not options.ckpt_dir:
        others = "seeded weights" if options.seeded_weights else "the tiny avatar, which has its own"
        raise BadInput(f"{given} belongs to a checkpoint, not to {others}", "leave --lora_path_dmd out")
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
    if is_shipped(options):
        return TINY
    from liveavatar_core.weights.layout import read_model_params

    return read_model_params(options.ckpt_dir)


def is_shipped(options: argparse.Namespace) -> bool:
    """Whether the tiny avatar that ships was chosen, by choosing nothing else."""
    return not options.ckpt_dir and not options.seeded_weights


def open_weights(options: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """Arguments `weights` and `tokenizer` of open_avatar. Raises CheckpointError."""
    if options.seeded_weights:
        return {}
    if is_shipped(options):
        from liveavatar_core.weights.shipped import shipped_weights

        return {"weights": shipped_weights(recipe)}
    from liveavatar_core.weights.checkpoint import open_checkpoint, open_tokenizer, with_lora
    from liveavatar_core.weights.lora import read_lora

    weights = open_checkpoint(options.ckpt_dir, recipe.model)
    deployment = recipe.deployment
    if options.lora_path_dmd:
        rank = deployment.lora_rank if deployment.lora == "adapter" else None
        weights = with_lora(weights, read_lora(options.lora_path_dmd), deployment.lora, rank)
    tokenizer = open_tokenizer(options.ckpt_dir, recipe.model.transformer.text_len)
    return {"weights": weights, "tokenizer": tokenizer}
