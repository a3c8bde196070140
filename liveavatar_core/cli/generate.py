"""`generate`: a portrait, a voice and a prompt become an mp4."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from liveavatar_core.cli.command import Command
from liveavatar_core.cli.field_options import add_fields, read_fields
from liveavatar_core.cli.model_options import (
    SHIPPED_SIZE,
    add_model_options,
    check_lora,
    is_shipped,
    open_weights,
    read_model,
)
from liveavatar_core.cli.process_group import check_ranks, is_first_rank, join_ranks, this_rank
from liveavatar_core.cli.progress_bar import show_progress
from liveavatar_core.cli.quick_imports import quick_imports
from liveavatar_core.cli.script_options import (
    add_script_options,
    check_script_options,
    read_as_scripts_do,
    target_of,
)
from liveavatar_core.cli.stop_signals import StopSignals
from liveavatar_core.cli.video_output import FrameWriter, Recorded, record
from liveavatar_core.config import FRAMES_PER_SECOND, ClipSpec, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadInput
from liveavatar_core.outputs import check_output
from liveavatar_core.recipes import RECIPES, named_recipe
from liveavatar_core.video_geometry import num_clips_in

if TYPE_CHECKING:
    import numpy as np

    from liveavatar_core.pipeline import Avatar, Inputs


def add_options(parser: argparse.ArgumentParser) -> None:
    """Inputs, the checkpoint, every field of ClipSpec and Deployment, and the file to write."""
    make = parser.add_argument_group("what to make")
    make.add_argument("--image", type=Path, required=True, metavar="FILE", help="Portrait: png, jpeg, webp, ...")
    make.add_argument("--audio", type=Path, required=True, metavar="FILE", help="Voice: wav, flac, mp3, m4a, ...")
    make.add_argument("--prompt", required=True, metavar="TEXT", help="What the video shows, in a sentence or two.")
    add_fields(make, ClipSpec, without=("quirks",))
    add_model_options(parser.add_argument_group("with which model"))
    layout = parser.add_argument_group("laid out how")
    layout.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="What computes: a card a rank, or the CPU. (default: cuda)",
    )
    layout.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="A named layout over as many cards as there are processes; other options change it.",
    )
    add_fields(layout, Deployment)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--save_file",
        type=Path,
        metavar="FILE",
        help="The video. (default: out.mp4)",
    )
    add_script_options(parser)


def run(options: argparse.Namespace, signals: StopSignals) -> int:
    """Make the video. Everything that a person can get wrong is looked at before anything is loaded."""
    recipe = read_recipe(options)
    check_prompt(options.prompt)
    target = target_of(options)
    check_target(target)
    inputs = read_inputs(options)
    check_ranks(recipe.deployment, options.device)
    weights = open_weights(options, recipe)
    if is_first_rank():
        print("loading the model", file=sys.stderr)
    from liveavatar_core.parallel.out_of_memory import typed_out_of_memory
    from liveavatar_core.pipeline import open_avatar

    with join_ranks(recipe.deployment, options.device) as device, typed_out_of_memory(this_rank()):
        avatar = open_avatar(recipe, device=device, **weights)
        recorded = write_video(avatar, inputs, target, signals)
    if recorded.frames:
        print(summary(target, recorded))
    if recorded.stopped:
        raise recorded.stopped
    return 0


def read_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe that the options declare. Raises InvalidRecipe, BadInput and CheckpointError."""
    named = named_recipe(options.recipe, int(os.environ.get("WORLD_SIZE", "1"))) if options.recipe else None
    clip = read_fields(options, ClipSpec, without=("quirks",), base=named and named.clip)
    if is_shipped(options) and not hasattr(options, "size"):
        clip["size"] = SHIPPED_SIZE
    layout = read_fields(options, Deployment, base=named and named.deployment)
    deployment = Deployment(**(layout if named else read_as_scripts_do(layout, vars(options))))
    check_script_options(options, deployment)
    check_lora(options, deployment)
    name = named.name if named else "command line"
    return Recipe(name=name, clip=ClipSpec(**clip), model=read_model(options), deployment=deployment)


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that says nothing, or holds what is no text. Raises BadInput."""
    if not prompt.strip():
        raise BadInput("the prompt is empty", 'give --prompt "A person talks to the camera."')
    if any(not (char.isprintable() or char.isspace()) for char in prompt):
        raise BadInput("the prompt holds characters that are no text", "give it in plain words")


def check_target(path: Path) -> None:
    """Refuse a file that could not be written once the work is done. Raises BadInput."""
    folder = path.parent
    if path.suffix.lower() != ".mp4":
        raise BadInput(f"{path} is not named .mp4, and mp4 is what is written", "give --save_file out.mp4")
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder, so {path.name} cannot be written there", f"mkdir -p {folder}")
    check_output(path, "--save_file")


def read_inputs(options: argparse.Namespace) -> Inputs:
    """Portrait, voice and prompt. Raises BadInput."""
    from liveavatar_core import media

    image, waveform = media.read_image(options.image), media.read_audio(options.audio)
    with quick_imports():
        from liveavatar_core.pipeline import Inputs

    return Inputs(image=image, waveform=waveform, prompt=options.prompt)


def write_video(avatar: Avatar, inputs: Inputs, path: Path, signals: StopSignals) -> Recorded:
    """Generate and write, showing how far it is. Raises OutOfMemory, and BadInput where the disk is full."""
    from liveavatar_core.media import VideoWriter

    def open_writer(height: int, width: int) -> AbstractContextManager[FrameWriter]:
        return VideoWriter(path, height, width, fps=FRAMES_PER_SECOND, audio=inputs.waveform)

    clip = avatar.system.recipe.clip
    clips = min(clip.num_clip, num_clips_in(len(inputs.waveform), clip.infer_frames))
    with show_progress(clips, clip.blocks_per_clip) as advance:
        return record(frames_to_write(avatar, inputs), open_writer, advance, signals)


def frames_to_write(avatar: Avatar, inputs: Inputs) -> Iterator[np.ndarray | None]:
    """Frames of each block, uint8 [N, H, W, 3], on the one rank that writes the video; None on the others."""
    world = avatar.system.world
    writes = world.rank == world.decode_rank
    for block in avatar.generate(inputs):
        yield block.frames_JHWC.numpy() if writes and block.frames_JHWC is not None else None


def summary(path: Path, recorded: Recorded) -> str:
    """What was made, in a line."""
    seconds = recorded.frames / FRAMES_PER_SECOND
    return f"{path}: {recorded.frames} frames, {seconds:.2f} s, {recorded.width}x{recorded.height}"


COMMAND = Command(
    name="generate",
    summary="Make a talking video of a portrait and a voice.",
    add_options=add_options,
    run=run,
)
