"""What ranks that really run have in common: inputs from files, clip after clip on command, the mp4."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from liveavatar_core.config import AUDIO_SAMPLES_PER_SECOND, FRAMES_PER_SECOND, ClipSpec, Recipe
from liveavatar_core.media import Samples, VideoWriter, read_audio, read_image
from liveavatar_core.parallel.ranks import decode_rank
from liveavatar_core.pipeline import Avatar, FrameBlock, Inputs, LatentBlock
from liveavatar_core.video_geometry import num_clips_in, output_size
from suites.harness.processes.child_link import ChildLink


def read_inputs(payload: dict[str, Any]) -> Inputs:
    """Image, prompt, and the voice for as long as the clips last: what encoding it takes depends on its length."""
    return Inputs(image=read_image(Path(payload["image"])), waveform=_voice(payload), prompt=payload["prompt"])


def _voice(payload: dict[str, Any]) -> Samples:
    """Said again from its start where there are more clips than it lasts for."""
    clip: ClipSpec = payload["recipe"].clip
    samples = clip.num_clip * clip.infer_frames * AUDIO_SAMPLES_PER_SECOND // FRAMES_PER_SECOND
    return np.resize(read_audio(Path(payload["audio"])), samples)


def count_clips(recipe: Recipe, inputs: Inputs) -> int:
    """How many clips there will be: what was asked for, or what the voice lasts for."""
    return min(recipe.clip.num_clip, num_clips_in(len(inputs.waveform), recipe.clip.infer_frames))


def make_video(link: ChildLink, avatar: Avatar, inputs: Inputs, report: Callable[[], dict[str, Any]]) -> None:
    """Answer each `clip` with its seconds; at `finish` the mp4 lies whole under its name, and `report` is sent."""
    recipe: Recipe = link.payload["recipe"]
    with ExitStack() as stack:
        output = None
        if link.rank == decode_rank(recipe.deployment):
            output = _Output(stack.enter_context(_writer(link.payload, inputs)), link.payload.get("kept"))
        blocks = avatar.generate(inputs, watch=output.see if output else None)
        while link.next_command() == "clip":
            link.reply(_make_clip(recipe, blocks, output))
    link.reply(report() | (output.close() if output else {}))
    link.next_command()  # a rank that ends before it is asked to has failed


class _Output:
    """Where latents and frames of the decode rank go: looked through, written; kept as they are where that is asked."""

    def __init__(self, writer: VideoWriter, kept: str | None) -> None:
        """`kept`: a safetensors file for latents and frames that no coder has touched."""
        self._writer, self._kept = writer, kept
        self._nan_blocks = 0
        self._latents: list[np.ndarray] = []
        self._frames: list[np.ndarray] = []

    def see(self, block: LatentBlock) -> None:
        """Latents, before they are decoded: frames of 8 bits do not show what was no number."""
        latents = block.latents_BCTHW.cpu().numpy()
        self._nan_blocks += not np.isfinite(latents).all()
        if self._kept:
            self._latents.append(latents.copy())

    def write(self, frames_JHWC: np.ndarray) -> None:
        """Frames, as they come."""
        self._writer.write(frames_JHWC)
        if self._kept:
            self._frames.append(frames_JHWC)

    def close(self) -> dict[str, Any]:
        """Put down what was kept; what was seen, for the report."""
        if self._kept:
            latents, frames = np.concatenate(self._latents, axis=2), np.concatenate(self._frames)
            save_file({"latents": latents, "frames": frames}, self._kept)
        return {"nan_blocks": self._nan_blocks}


def _make_clip(recipe: Recipe, blocks: Iterator[FrameBlock], output: _Output | None) -> dict[str, Any]:
    """Seconds of the next clip and of its first frame; an empty answer if there are no more."""
    started, first_frame = time.monotonic(), None
    for block in blocks:
        if block.frames_JHWC is not None:
            first_frame = first_frame or time.monotonic() - started
        if output is not None and block.frames_JHWC is not None:
            output.write(block.frames_JHWC.numpy())
        if block.index == recipe.clip.blocks_per_clip - 1:
            return {"seconds": time.monotonic() - started, "first_frame_seconds": first_frame}
    return {}


def _writer(payload: dict[str, Any], inputs: Inputs) -> VideoWriter:
    height, width = output_size(inputs.image.height, inputs.image.width, payload["recipe"].clip.max_area)
    return VideoWriter(Path(payload["video"]), height, width, audio=inputs.waveform)
