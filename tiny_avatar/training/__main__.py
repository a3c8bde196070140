"""Trains the tiny avatar from nothing, stage by stage; stop it at any time, start it again and it goes on.

    python -m tiny_avatar.training FOLDER [--effort 1.0] [--threads 2]

FOLDER gets states, logs and at last `avatar/`, the checkpoint. `--effort` scales the number of steps.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from liveavatar_core.encoders.audio import AudioEncoder
from liveavatar_core.encoders.text import TextEncoder
from liveavatar_core.model.transformer import LiveAvatarTransformer
from liveavatar_core.recipes import TINY, miniature, single
from liveavatar_core.weights.adapter import add_adapters
from liveavatar_core.weights.names import Component
from tiny_avatar.training.avatar import rollout_losses, write_avatar
from tiny_avatar.training.data import Examples, build_examples, contexts, read_examples
from tiny_avatar.training.encoders import train_audio_encoder, train_text_encoder
from tiny_avatar.training.loop import Losses, Stage, train
from tiny_avatar.training.transformer import flow_losses, pick_window
from tiny_avatar.training.vae import train_vae

PARTS, PART_VIDEOS = 6, 125
"""Files of examples, and videos in each."""
LORA_RANK = miniature(single(1)).deployment.lora_rank


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How many steps each stage takes."""

    pictures: int = 1100
    """Steps of the VAE on pictures."""
    videos: int = 1000
    """Steps of the VAE on videos."""
    mouths: int = 1200
    """Steps of the VAE on videos, mouths first."""
    text: int = 300
    """Steps of the text encoder."""
    audio: int = 900
    """Steps of the audio encoder."""
    flow: int = 1500
    """Steps of the transformer."""
    lora: int = 100
    """Steps of its LoRA."""

    def scaled(self, effort: float) -> Steps:
        """Each stage with `effort` times as many steps, one at least."""
        return Steps(**{name: max(1, round(steps * effort)) for name, steps in vars(self).items()})


def main() -> None:
    """Train every stage in turn, and write the checkpoint."""
    options = read_options()
    torch.set_num_threads(options.threads)
    folder, steps = options.folder, Steps().scaled(options.effort)
    folder.mkdir(parents=True, exist_ok=True)
    vae = train_vae(folder, steps.pictures, steps.videos, steps.mouths)
    text, audio = train_text_encoder(folder, steps.text), train_audio_encoder(folder, steps.audio)
    examples = read_examples([build_examples(folder, vae, audio, PART_VIDEOS, part) for part in range(PARTS)])
    table = contexts(text)
    transformer = train_transformer(folder, steps.flow, examples, table)
    parts = parts_of(transformer, text, audio, vae)
    lora = train_lora(folder, steps.lora, transformer, examples, table)
    write_avatar(folder / "avatar", parts, lora)


def read_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tiny_avatar.training", description="Train the tiny avatar.")
    parser.add_argument("folder", type=Path, help="States, logs, and the checkpoint.")
    parser.add_argument("--effort", type=float, default=1.0, help="Times the number of steps. (default: 1)")
    parser.add_argument("--threads", type=int, default=2, help="Of the CPU. (default: 2)")
    return parser.parse_args()


def train_transformer(folder: Path, steps: int, examples: Examples, table: Tensor) -> LiveAvatarTransformer:
    """Flow matching, on single blocks first and on ever longer windows."""
    torch.manual_seed(0)
    model = LiveAvatarTransformer(TINY.transformer)

    def losses(batch: int, blocks: int, random: np.random.Generator) -> Losses:
        window = pick_window(random, examples, table, batch, blocks)
        return flow_losses(model, window, (1000.0, random.uniform(50, 990)))

    for name, share, batch, blocks in (("flow_1", 0.5, 12, 1), ("flow_2", 0.3, 8, 2), ("flow_4", 0.2, 6, 4)):
        rate = 0.01 if blocks == 1 else 0.005
        stage = Stage(name=name, folder=folder, steps=max(1, round(steps * share)), rate=rate, average=0.995)
        train(stage, model, partial(losses, batch, blocks))
    return model


def train_lora(
    folder: Path, steps: int, transformer: LiveAvatarTransformer, examples: Examples, table: Tensor
) -> dict[str, Tensor]:
    """Factors that bring the transformer to four steps; `transformer` gets them as adapters."""
    torch.manual_seed(0)
    transformer.requires_grad_(False)
    add_adapters(transformer, LORA_RANK)
    stage = Stage(name="lora", folder=folder, steps=steps, rate=2e-3, adam_rate=1e-3)
    train(stage, transformer, lambda random: rollout_losses(transformer, pick_window(random, examples, table, 6, 2)))
    return {name: weight.detach() for name, weight in transformer.named_parameters() if ".lora_" in name}


def parts_of(
    transformer: nn.Module, text: TextEncoder, audio: AudioEncoder, vae: nn.Module
) -> dict[Component, dict[str, Tensor]]:
    """Weights of every component by the names of its module."""
    modules: dict[Component, nn.Module] = {
        "transformer": transformer,
        "text_encoder": text,
        "audio_encoder": audio,
        "vae": vae,
    }
    return {part: {n: w.detach().clone() for n, w in module.named_parameters()} for part, module in modules.items()}


if __name__ == "__main__":
    main()
