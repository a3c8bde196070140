"""What a rank of the pool does: a recipe after another, under a tracker of its own."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.numpy import save_file

from liveavatar_core.config import Recipe
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.load import Weights
from liveavatar_core.parallel.world import World, join_world
from liveavatar_core.pipeline import Inputs, load_avatar
from liveavatar_core.pipeline.conditioning import encode
from liveavatar_core.pipeline.decoding import decode, open_decoder
from liveavatar_core.pipeline.types import FrameBlock, LatentBlock
from liveavatar_core.recipes import TINY
from liveavatar_core.simulation.estimate import simulated_inputs
from liveavatar_core.simulation.memory_tracker import MemoryTracker
from suites.fuzz.injected_faults import injected
from suites.fuzz.oracle import denoise_by_hand
from suites.fuzz.ranks import FuzzJob, MakeReply, MakeRequest
from suites.harness.cases.workloads import miniature_workload
from suites.harness.processes.link import Link
from suites.harness.workers.clips import read_inputs
from suites.harness.workers.miniature import small_weights


def run(link: Link) -> None:
    """Command `make`, with a MakeRequest; what was made goes into the group's folder."""
    job = link.job(FuzzJob)
    torch.set_num_threads(1)
    if link.world_size > 1:
        dist.init_process_group("gloo", init_method=link.rendezvous, rank=link.rank, world_size=link.world_size)
    for command in link.commands():
        request = command.argument_as(MakeRequest)
        with injected(job.fault), torch.no_grad():
            made, memory = (_by_hand if request.by_hand else _generate)(request.recipe, link.rank)
        save_file(made, Path(job.folder) / f"video{link.rank}.safetensors")
        link.reply(MakeReply(memory=memory))
        gc.collect()
    if link.world_size > 1:
        dist.destroy_process_group()


def _world(recipe: Recipe) -> World:
    return join_world(recipe.deployment, Memory(card=torch.device("cpu")))


def _generate(recipe: Recipe, rank: int) -> tuple[dict[str, np.ndarray], dict[str, dict[str, int]]]:
    world, (weights, inputs) = _world(recipe), _given(recipe)
    tracker, latents = MemoryTracker(rank=rank), []
    frames = []

    def see(block: LatentBlock) -> None:
        with tracker.paused():
            latents.append(block.latents_BCTHW.numpy().copy())

    with tracker:
        avatar = load_avatar(recipe, world, weights)
        for block in avatar.generate(inputs, watch=see):
            frames.append(_pixels(block))
            del block
        del avatar
    memory = {phase: dict(peak.by_category) for phase, peak in tracker.peaks.items()}
    return _packed(latents, frames, inputs), memory


def _by_hand(recipe: Recipe, rank: int) -> tuple[dict[str, np.ndarray], dict[str, dict[str, int]]]:
    weights, inputs = _given(recipe)
    avatar = load_avatar(recipe, _world(recipe), weights)
    conditioning, motion = encode(avatar.system, avatar.tokenizer, inputs)
    blocks = list(denoise_by_hand(avatar.system, conditioning, motion))
    decoder = open_decoder(avatar.system, conditioning, motion)
    frames = [_pixels(block) for block in decode(decoder, blocks, avatar.system.world.memory)]
    return _packed([block.latents_BCTHW.numpy() for block in blocks], frames, inputs), {}


def _given(recipe: Recipe) -> tuple[Weights, Inputs]:
    """The tiny avatar with a face and a voice, or a model of chance, of which only sizes matter."""
    if recipe.model != TINY:
        return small_weights(recipe), simulated_inputs(recipe)
    return small_weights(recipe), read_inputs(replace(recipe, workload=miniature_workload()))


def _pixels(block: FrameBlock) -> np.ndarray:
    return np.empty((0, 0, 0, 3), np.uint8) if block.frames_JHWC is None else block.frames_JHWC.numpy().copy()


def _packed(latents: list[np.ndarray], frames: list[np.ndarray], inputs: Inputs) -> dict[str, np.ndarray]:
    numbered = {f"latents{index}": np.ascontiguousarray(block) for index, block in enumerate(latents)}
    return {"frames": np.concatenate(frames), "sound": np.asarray(inputs.waveform, np.float32), **numbered}
