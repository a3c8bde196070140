"""Runs a deployment of a very small model, a process a rank, and hands back what came out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from waiting import PATIENCE

from liveavatar_core.config import ClipSpec, ModelParams, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.encoders.params import AudioEncoderParams, TextEncoderParams, VaeParams
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.parallel.ranks import decode_rank
from suites.harness.processes.link import Done
from suites.harness.processes.rank_group import Job, RankGroup

if TYPE_CHECKING:
    from suites.harness.processes.link import Link

SMALL = ModelParams(
    transformer=TransformerParams(
        dim=64,
        ffn_dim=128,
        num_heads=8,
        num_layers=2,
        freq_dim=16,
        text_dim=32,
        text_len=16,
        audio_dim=32,
        audio_inject_layers=(0, 1),
    ),
    text_encoder=TextEncoderParams(vocab_size=272, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4),
    audio_encoder=AudioEncoderParams(
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    ),
    vae=VaeParams(base_dim=4),
)
CLIP = ClipSpec(size="64*64", infer_frames=24, num_clip=2)
PRELOAD = ("torch", "liveavatar_core.pipeline", "deployments")


@dataclass(frozen=True)
class Video:
    """What one run came to."""

    latents: list[np.ndarray]
    """Of each block, in order."""
    frames: np.ndarray
    """uint8 [N, H, W, 3]."""


def small(deployment: Deployment, **clip: Any) -> Recipe:
    """The deployment in float32, with the small model and two clips; LoRA factors of rank 4."""
    exact = replace(deployment, storage_dtype="float32", compute_dtype="float32", lora_rank=4)
    return Recipe(name="small", clip=replace(CLIP, **clip), model=SMALL, deployment=exact)


class Videos:
    """Makes videos of recipes known by name, a process a rank. Ranks stay for the next recipe over as many.

    Those of one process stay beside others: they make what the others are compared with.
    """

    def __init__(self, recipes: Mapping[str, Recipe], folder: Path) -> None:
        self._recipes, self._folder = dict(recipes), folder
        self._groups: dict[int, RankGroup] = {}
        self._made: dict[str, Video] = {}

    def make(self, name: str) -> Video:
        """Run every rank, once for each name; the video is that of the rank that decodes."""
        if name not in self._made:
            deployment = self._recipes[name].deployment
            self._ranks(deployment.num_cards).command("make", Make(name=name), answer=Done, seconds=PATIENCE)
            with np.load(self._folder / f"{name}.{decode_rank(deployment)}.npz") as arrays:
                self._made[name] = Video(latents=list(arrays["latents"]), frames=arrays["frames"])
        return self._made[name]

    def close(self) -> None:
        """End all ranks."""
        for cards in list(self._groups):
            self._groups.pop(cards).stop()

    def _ranks(self, cards: int) -> RankGroup:
        group = self._groups.get(cards)
        if group is None or not group.pids:  # none yet, or ended by a failure
            for other in [other for other in self._groups if other > 1 and cards > 1]:
                self._groups.pop(other).stop()
            given = Given(recipes=self._recipes, folder=str(self._folder))
            job = Job(target="deployments:run", given=given, world_size=cards, preload=PRELOAD)
            group = self._groups[cards] = RankGroup.start(job, self._folder / f"{cards}")
        return group


@dataclass(frozen=True, kw_only=True)
class Given:
    """What every rank is given."""

    recipes: dict[str, Recipe]
    folder: str


@dataclass(frozen=True, kw_only=True)
class Make:
    """The argument of `make`."""

    name: str


def run(link: Link) -> None:
    """Command `make`: one of the recipes."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if link.world_size > 1:
        dist.init_process_group("gloo", init_method=link.rendezvous, rank=link.rank, world_size=link.world_size)
    given = link.job(Given)
    for command in link.commands():
        name = command.argument_as(Make).name
        with torch.no_grad():
            video = _generate(given.recipes[name])
        np.savez(Path(given.folder) / f"{name}.{link.rank}.npz", **video)
        link.reply(Done())
    if link.world_size > 1:
        dist.destroy_process_group()


def _generate(recipe: Recipe) -> dict[str, np.ndarray]:
    from liveavatar_core.pipeline import open_avatar
    from liveavatar_core.pipeline.conditioning import encode
    from liveavatar_core.pipeline.decoding import decode, open_decoder
    from liveavatar_core.pipeline.denoising import denoise, open_denoiser
    from liveavatar_core.simulation.estimate import simulated_inputs

    avatar = open_avatar(recipe)
    system = avatar.system
    conditioning, motion = encode(system, avatar.tokenizer, simulated_inputs(recipe))
    blocks = list(denoise(open_denoiser(system, conditioning), conditioning.num_clip, motion))
    latents = [block.latents_BCTHW.numpy() for block in blocks]
    decoder = open_decoder(system, conditioning, motion)
    frames = [block.frames_JHWC for block in decode(decoder, blocks, system.world.memory)]
    return {
        "latents": np.stack(latents),
        "frames": np.concatenate([made.numpy() for made in frames if made is not None] or [np.empty(0)]),
    }
