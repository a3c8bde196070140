"""The parts that a rank holds, and where they stand when they work and when they do not."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from liveavatar_core.config import Recipe
from liveavatar_core.encoders.vae import VideoVae
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.attention import choose_cuda_kernel
from liveavatar_core.model.compiled_blocks import compile_blocks
from liveavatar_core.model.transformer import LiveAvatarTransformer
from liveavatar_core.parallel.card_support import check_card
from liveavatar_core.parallel.load import DTYPES, Weights, load_parts, resting_parts
from liveavatar_core.parallel.world import World
from liveavatar_core.weights.load_work import LoadWork
from liveavatar_core.weights.reading import one_reader


@dataclass(frozen=True, kw_only=True)
class System:
    """The parts that one rank holds, in place."""

    recipe: Recipe
    """What was asked for."""
    world: World
    """Which rank this is."""
    parts: dict[str, nn.Module]
    """What it holds of PARTS; a decode rank has no transformer."""
    load: LoadWork | None = None
    """What loading took; None where nothing was loaded (simulations)."""

    def rests(self, part: str) -> bool:
        """Whether the part stands in host memory when it does not work."""
        return part in resting_parts(self.recipe)

    def release(self, *parts: str) -> None:
        """Give up the memory of parts that will not work again."""
        for part in parts:
            self.parts.pop(part, None)
        gc.collect()  # sharded modules hold themselves

    @property
    def transformer(self) -> LiveAvatarTransformer:
        """The diffusion transformer, bare or wrapped."""
        return cast(LiveAvatarTransformer, self.parts["transformer"])

    @property
    def vae(self) -> VideoVae:
        """The video VAE; its encoder and decoder are called one by one."""
        return cast(VideoVae, self.parts["vae"])

    @property
    def compute_dtype(self) -> torch.dtype:
        """What weights are multiplied in."""
        return DTYPES[self.recipe.deployment.compute_dtype]

    @contextmanager
    def on_card(self, part: str) -> Iterator[nn.Module]:
        """The part, in card memory while inside; a part that rests in host memory is lent from there.

        Raises InvalidRecipe if it was released.
        """
        if part not in self.parts:
            raise InvalidRecipe(
                f"the {part.replace('_', ' ')} was given up after the first video (free_encoders)",
                "load the model again, or drop free_encoders",
            )
        stays = part == "text_encoder" and self.recipe.deployment.t5_cpu
        module = self.parts[part]
        with self.world.memory.lent(module) if self.rests(part) and not stays else nullcontext():
            yield module


def load_system(recipe: Recipe, world: World, weights: Weights) -> System:
    """Load every part that this rank holds, and choose its kernels. Phase load; bytes are parameters.

    Raises InvalidRecipe before anything is loaded where the card cannot compute it.
    """
    if world.memory.card.type == "cuda":
        check_card(recipe.deployment, torch.cuda.get_device_capability(world.memory.card))
    started = time.monotonic()
    with one_reader() as reader:
        parts = load_parts(recipe, world, weights)
    seconds = time.monotonic() - started
    work = LoadWork(seconds=seconds, read_seconds=reader.read_seconds, read_bytes=reader.read_bytes)
    choose_cuda_kernel(recipe.deployment.attention)
    if recipe.deployment.compile and "transformer" in parts and world.memory.card.type == "cuda":
        compile_blocks(parts["transformer"])
    return System(recipe=recipe, world=world, parts=parts, load=work)
