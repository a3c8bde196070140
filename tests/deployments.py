"""Runs a deployment of a very small model, a process a rank, and hands back what came out of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from liveavatar_core.config import ClipSpec, Deployment, ModelParams, Recipe
from liveavatar_core.deploy.roles import decode_rank
from liveavatar_core.encoders.params import AudioEncoderParams, TextEncoderParams, VaeParams
from liveavatar_core.model.params import TransformerParams
from suites.harness.launch import Job, RankGroup

if TYPE_CHECKING:
    from suites.harness.channel import ChildLink

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


def make_video(recipe: Recipe, folder: Path) -> Video:
    """Run every rank; the video is that of the rank that decodes."""
    cards, payload = recipe.deployment.num_cards, {"recipe": recipe, "folder": str(folder)}
    with RankGroup.start(
        Job(target="deployments:run", payload=payload, world_size=cards, preload=PRELOAD), folder
    ) as group:
        group.command("video", seconds=60)
    with np.load(folder / f"video{decode_rank(recipe.deployment)}.npz") as arrays:
        return Video(latents=list(arrays["latents"]), frames=arrays["frames"])


def run(link: ChildLink) -> None:
    """Commands: `video`."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if link.world_size > 1:
        dist.init_process_group("gloo", init_method=link.rendezvous, rank=link.rank, world_size=link.world_size)
    for _ in link.commands():
        with torch.no_grad():
            video = _generate(link.payload["recipe"])
        np.savez(Path(link.payload["folder"]) / f"video{link.rank}.npz", **video)
        link.reply({})
    if link.world_size > 1:
        dist.destroy_process_group()


def _generate(recipe: Recipe) -> dict[str, np.ndarray]:
    from liveavatar_core.pipeline import open_avatar
    from liveavatar_core.pipeline.conditioning import encode
    from liveavatar_core.pipeline.decoding import decode
    from liveavatar_core.pipeline.denoising import denoise
    from liveavatar_core.simulation.run import simulated_inputs

    with open_avatar(recipe) as avatar:
        system = avatar.system
        conditioning = encode(system, avatar.tokenizer, simulated_inputs(recipe))
        blocks = list(denoise(system, conditioning))
        latents = [block.latents_BCTHW.numpy() for block in blocks]
        frames = [block.frames_JHWC for block in decode(system, conditioning, blocks)]
    return {
        "latents": np.stack(latents),
        "frames": np.concatenate([made.numpy() for made in frames if made is not None] or [np.empty(0)]),
    }
