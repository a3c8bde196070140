"""What ranks that really run have in common: inputs from files, clip after clip on command, the mp4."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND, FRAMES_PER_SECOND, ClipSpec, Recipe
from liveavatar_core.deploy.roles import decode_rank
from liveavatar_core.media import VideoWriter, read_audio, read_image
from liveavatar_core.pipeline import FrameBlock, Inputs
from liveavatar_core.sizing import num_clips_in, output_size
from suites.harness.channel import ChildLink


def read_inputs(payload: dict[str, Any]) -> Inputs:
    """Image, prompt, and as much of the voice as the clips last for: what encoding it takes depends on its length."""
    clip: ClipSpec = payload["recipe"].clip
    samples = clip.num_clip * clip.infer_frames * AUDIO_SAMPLES_PER_SECOND // FRAMES_PER_SECOND
    return Inputs(
        image=read_image(Path(payload["image"])),
        waveform=read_audio(Path(payload["audio"]))[:samples],
        prompt=payload["prompt"],
    )


def count_clips(recipe: Recipe, inputs: Inputs) -> int:
    """How many clips there will be: what was asked for, or what the voice lasts for."""
    return min(recipe.clip.num_clip, num_clips_in(len(inputs.waveform), recipe.clip.infer_frames))


def make_video(link: ChildLink, blocks: Iterator[FrameBlock], report: Callable[[], dict[str, Any]]) -> None:
    """Answer each `clip` with its seconds; at `finish` the mp4 lies whole under its name, and `report` is sent."""
    recipe: Recipe = link.payload["recipe"]
    with ExitStack() as stack:
        writer = stack.enter_context(_writer(link.payload)) if link.rank == decode_rank(recipe.deployment) else None
        while link.next_command() == "clip":
            link.reply(_make_clip(recipe, blocks, writer))
    link.reply(report())
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
