"""What ranks that really run have in common: inputs from files, clip after clip on command, the mp4."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
import torch.distributed as dist
from PIL import ImageOps
from safetensors.numpy import save_file

from liveavatar_core.config import Recipe
from liveavatar_core.errors import BadInput
from liveavatar_core.frame_folder import FrameFolder, has_encoder
from liveavatar_core.media import Samples, VideoWriter, read_audio, read_image
from liveavatar_core.parallel.ranks import decode_rank
from liveavatar_core.pipeline import Avatar, Inputs, LatentBlock
from liveavatar_core.torch_private import attention_told
from liveavatar_core.video_geometry import num_clips_in, output_size
from suites.harness.cases.run_plan import frame_folder
from suites.harness.messages import ClipJob, ClipTime, Loaded, RankReport
from suites.harness.probes.observed_settings import SettingsObserver
from suites.harness.probes.phase_clock import PhaseClock
from suites.harness.processes.link import Link


def read_inputs(recipe: Recipe) -> Inputs:
    """Portrait, cut to the shape that is declared; prompt; the voice for as long as the clips last."""
    workload = recipe.workload
    portrait = read_image(Path(workload.image))
    if portrait.size != (workload.portrait_width, workload.portrait_height):
        portrait = ImageOps.fit(portrait, (workload.portrait_width, workload.portrait_height))
    return Inputs(image=portrait, waveform=_voice(recipe), prompt=workload.prompt)


def _voice(recipe: Recipe) -> Samples:
    """As long as declared; said again from its start where that is longer than the recording."""
    samples = recipe.workload.voice_length(recipe.clip.num_clip * recipe.clip.infer_frames)
    return np.resize(read_audio(Path(recipe.workload.audio)), samples)


def count_clips(recipe: Recipe, inputs: Inputs) -> int:
    """The number of clips that there will be: as many as asked for, or as the voice lasts for."""
    return min(recipe.clip.num_clip, num_clips_in(len(inputs.waveform), recipe.clip.infer_frames))


def join_group(link: Link, job: ClipJob) -> timedelta:
    """Make a process group of the ranks, if there are several. Returns how long one waits for others in it."""
    timeout = timedelta(seconds=job.group_seconds)
    if link.world_size > 1:
        dist.init_process_group(
            job.backend,
            timeout=timeout,
            init_method=link.rendezvous,
            rank=link.rank,
            world_size=link.world_size,
        )
    return timeout


def make_video(
    link: Link,
    job: ClipJob,
    avatar: Avatar,
    inputs: Inputs,
    observer: SettingsObserver,
    report: Callable[[], RankReport],
    clock: PhaseClock,
) -> None:
    """Say that all is loaded, and answer each `clip` with its seconds; at `finish` the mp4 lies whole under its name,
    and `report` is sent.
    """
    clock.loaded()
    link.reply(Loaded(clips=count_clips(job.recipe, inputs), seconds_by_part=clock.take(None)))
    with ExitStack() as stack:
        stack.enter_context(attention_told(avatar.system.world.memory.card.type, observer.see_attention))
        output = None
        if link.rank == decode_rank(job.recipe.deployment):
            output = _Output(stack.enter_context(_writer(job, inputs)), job.kept)
        maker = _ClipMaker(job.recipe, avatar, inputs, output, observer, clock)
        clock.pause()
        while (command := link.next_command()) is not None and command.name == "clip":
            link.reply(maker.make())
            clock.pause()
    told = report()
    link.reply(replace(told, nan_blocks=output.close()) if output else told)
    link.next_command()  # a rank that ends before it is asked to has failed


class FrameSink(Protocol):
    """What takes the frames of a video."""

    def write(self, frames_NHW3: np.ndarray) -> None:
        """Append frames: uint8 [N, H, W, 3]."""


class _Output:
    """Where latents and frames of the decode rank go: looked through, written; kept as they are where that is asked."""

    def __init__(self, writer: FrameSink, kept: str | None) -> None:
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

    def close(self) -> int:
        """Put down what was kept; how many blocks had latents that were not finite."""
        if self._kept:
            latents, frames = np.concatenate(self._latents, axis=2), np.concatenate(self._frames)
            save_file({"latents": latents, "frames": frames}, self._kept)
        return self._nan_blocks


class _ClipMaker:
    """Makes clip after clip of one video, and says where the time of each went.

    Where a video is denoised whole before any of it is decoded, a clip has its share of both.
    """

    def __init__(
        self,
        recipe: Recipe,
        avatar: Avatar,
        inputs: Inputs,
        output: _Output | None,
        observer: SettingsObserver,
        clock: PhaseClock,
    ) -> None:
        self._last, self._output, self._clock = recipe.clip.blocks_per_clip - 1, output, clock
        self._observer = observer
        self._blocks = avatar.generate(inputs, watch=self._see)
        self._started: float | None = None

    def _see(self, block: LatentBlock) -> None:
        if self._output is not None:
            self._output.see(block)
        self._clock.give(block.clip)

    def make(self) -> ClipTime:
        """The time of the next clip. Raises BadInput if there are no more."""
        self._clock.resume()
        self._started = self._started or time.monotonic()
        arrived: list[tuple[float, int]] = []
        for block in self._blocks:
            if block.frames_JHWC is not None:
                arrived.append((time.monotonic() - self._started, len(block.frames_JHWC)))
                self._observer.see_frames(block.frames_JHWC)
            if self._output is not None and block.frames_JHWC is not None:
                self._output.write(block.frames_JHWC.numpy())
            if block.index == self._last:
                return self._time(block.clip, arrived)
        raise BadInput("another clip was asked for than there are", "ask for as many as the answer to `load` says")

    def _time(self, clip: int, arrived: list[tuple[float, int]]) -> ClipTime:
        parts = self._clock.take(clip)
        return ClipTime(
            seconds=sum(parts.values()),
            seconds_by_part=parts,
            block_seconds=tuple(seconds for seconds, _ in arrived),
            block_frames=tuple(frames for _, frames in arrived),
        )


def _writer(job: ClipJob, inputs: Inputs) -> AbstractContextManager[FrameSink]:
    """The mp4; where there is no encoder, its frames."""
    if not has_encoder():
        print("PyAV is not installed: frames are kept as PNG, and there is no mp4", file=sys.stderr)
        return FrameFolder(frame_folder(Path(job.video)))
    height, width = output_size(inputs.image.height, inputs.image.width, job.recipe.clip.max_area)
    return VideoWriter(Path(job.video), height, width, audio=inputs.waveform)
