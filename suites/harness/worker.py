"""What a rank's process does in the modes that need no card: `simulate` one role, or really `run` a miniature rank."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from liveavatar_core.cards import find_card
from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND, FRAMES_PER_SECOND, ClipSpec, Recipe
from liveavatar_core.deploy.memory import Memory
from liveavatar_core.deploy.roles import decode_rank
from liveavatar_core.deploy.system import seeded_weights
from liveavatar_core.deploy.world import join_world
from liveavatar_core.media import VideoWriter, read_audio, read_image
from liveavatar_core.pipeline import FrameBlock, Inputs, load_avatar
from liveavatar_core.simulation.ledger import Capacity, Ledger, PhasePeak
from liveavatar_core.simulation.roofline import predict
from liveavatar_core.simulation.run import SimulatedRank, simulate_rank
from liveavatar_core.sizing import output_size
from suites.harness.channel import ChildLink

CLIP_PHASES = ("denoise", "decode")
"""What a clip's predicted seconds cover; load, encode and prefill happen once a run."""


def simulate(link: ChildLink) -> None:
    """Commands: `run`. Payload: recipe, card, ranks (the lowest rank of each role, one a process)."""
    recipe, card = link.payload["recipe"], find_card(link.payload["card"])
    rank = link.payload["ranks"][link.rank]
    for _ in link.commands():
        started = time.monotonic()
        result = simulate_rank(recipe, rank, Capacity(card=card.usable_bytes))
        prediction = predict(result.work, card, CLIP_PHASES)
        link.reply(
            {
                "memory": memory_of(rank, result.peaks),
                "out_of_memory": _details(result),
                "clips": result.clips,
                "predicted_seconds": prediction.seconds,
                "communication_share": prediction.communication_share,
                "breakdown": asdict(prediction),
                "verdict_seconds": time.monotonic() - started,
                "torch": torch.__version__,
            }
        )


def _details(result: SimulatedRank) -> dict[str, Any] | None:
    error = result.out_of_memory
    names = ("rank", "phase", "category", "requested", "free", "capacity", "holders")
    return {name: getattr(error, name) for name in names} if error else None


def memory_of(rank: int, peaks: dict[str, PhasePeak]) -> list[dict[str, Any]]:
    """What the ledger saw, as it crosses the channel."""
    return [
        {"rank": rank, "phase": phase, "allocated_bytes": peak.allocated, "by_category": peak.by_category}
        for phase, peak in peaks.items()
    ]


def run(link: ChildLink) -> None:
    """Commands: `load`, then `clip` until it answers that there are no more, then `finish`.

    Payload: recipe, capacity_bytes, image, audio, prompt, video (path of the mp4).
    """
    recipe: Recipe = link.payload["recipe"]
    ledger = Ledger(rank=link.rank, capacity=Capacity(card=link.payload["capacity_bytes"]))
    ledger.on_phase = lambda phase: _tell(link, ledger, phase)
    if link.world_size > 1:
        dist.init_process_group("gloo", init_method=link.rendezvous, rank=link.rank, world_size=link.world_size)
    inputs = _inputs(link.payload)
    link.next_command()
    try:
        world = join_world(recipe.deployment, Memory(card=torch.device("cpu")))
        weights = seeded_weights(recipe)
        with ledger:
            avatar = load_avatar(recipe, world, weights)
            link.reply({})
            _make_video(link, ledger, recipe, avatar.generate(inputs))
    finally:
        _tell(link, ledger, next(reversed(ledger.peaks), "load"))
    if link.world_size > 1:
        dist.destroy_process_group()


def _tell(link: ChildLink, ledger: Ledger, phase: str) -> None:
    """Send what is known so far, so that a rank that fails leaves its readings behind."""
    link.event({"phase": phase, "memory": memory_of(link.rank, ledger.peaks)})


def _inputs(payload: dict[str, Any]) -> Inputs:
    """Image, prompt, and as much of the voice as the clips last for: what encoding it takes depends on its length."""
    clip: ClipSpec = payload["recipe"].clip
    samples = clip.num_clip * clip.infer_frames * AUDIO_SAMPLES_PER_SECOND // FRAMES_PER_SECOND
    return Inputs(
        image=read_image(Path(payload["image"])),
        waveform=read_audio(Path(payload["audio"]))[:samples],
        prompt=payload["prompt"],
    )


def _make_video(link: ChildLink, ledger: Ledger, recipe: Recipe, blocks: Iterator[FrameBlock]) -> None:
    """Answer each `clip` with its seconds; at `finish` the mp4 is closed and lies whole under its name."""
    with ExitStack() as stack:
        writer = stack.enter_context(_writer(link.payload)) if link.rank == decode_rank(recipe.deployment) else None
        while link.next_command() == "clip":
            link.reply(_make_clip(recipe, blocks, writer))
    link.reply({"memory": memory_of(link.rank, ledger.peaks), "torch": torch.__version__})
    link.next_command()  # a rank that ends before it is asked to has failed


def _make_clip(recipe: Recipe, blocks: Iterator[FrameBlock], writer: VideoWriter | None) -> dict[str, Any]:
    """Seconds of the next clip and of its first frame; an empty answer if there are no more."""
    started, first_frame = time.monotonic(), None
    for block in blocks:
        if block.frames_JHWC is not None:
            first_frame = first_frame or time.monotonic() - started
        if writer is not None and block.frames_JHWC is not None:
            writer.write(block.frames_JHWC.numpy())
        if block.index == recipe.clip.blocks_per_clip - 1:
            return {"seconds": time.monotonic() - started, "first_frame_seconds": first_frame}
    return {}


def _writer(payload: dict[str, Any]) -> VideoWriter:
    image, recipe = read_image(Path(payload["image"])), payload["recipe"]
    height, width = output_size(image.height, image.width, recipe.clip.max_area)
    return VideoWriter(Path(payload["video"]), height, width, audio=read_audio(Path(payload["audio"])))
