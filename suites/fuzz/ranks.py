"""Ranks that are kept alive from recipe to recipe: a group of processes for each number of cards. Free of torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from liveavatar_core.config import Recipe
from liveavatar_core.parallel.ranks import decode_rank
from suites.harness.processes.rank_group import GroupError, Job, RankGroup

PRELOAD = ("torch", "suites.fuzz.worker")
SECONDS = 1800
"""Seconds for all ranks to make a video, which takes a few: the bound only ends a hang."""


@dataclass(frozen=True, kw_only=True)
class FuzzJob:
    """The job of a group's ranks: where their files go, and which fault they have."""

    folder: str
    """The folder for the frames, sound and latents that a rank makes."""
    fault: str
    """One of injected_faults.FAULTS, or empty."""


@dataclass(frozen=True, kw_only=True)
class MakeRequest:
    """The argument of `make`."""

    recipe: Recipe
    """The recipe of the video."""
    by_hand: bool
    """Whether a plain loop makes it, beside the pipeline."""


@dataclass(frozen=True, kw_only=True)
class MakeReply:
    """The answer to `make`, beside the file that a rank leaves."""

    memory: dict[str, dict[str, int]]
    """Bytes at the fullest moment of each phase, by category; empty where it was made by hand."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """The video of one run, and the bytes that its ranks held."""

    latents: list[np.ndarray]
    """The latents of each block, in order."""
    frames: np.ndarray
    """uint8 [N, H, W, 3]."""
    sound: np.ndarray
    """Samples at 16 kHz that it was made to."""
    memory: list[dict[str, dict[str, int]]]
    """Bytes of each rank at the fullest moment of each phase, by category."""


class Pool:
    """Groups of ranks that wait for recipes."""

    def __init__(self, folder: Path, fault: str = "") -> None:
        """`folder` is the pool's own. `fault`: one of injected_faults.FAULTS, injected in every rank."""
        self._folder, self._fault = folder, fault
        self._groups: dict[int, tuple[RankGroup, Path]] = {}
        self._started = 0

    def make(self, recipe: Recipe, *, by_hand: bool = False) -> Made:
        """Run `recipe`, a process a rank. `by_hand`: by a plain loop beside the pipeline. GroupError if one fails."""
        cards = recipe.deployment.num_cards
        group, folder = self._group(cards)
        request = MakeRequest(recipe=recipe, by_hand=by_hand)
        try:
            replies = group.command("make", request, answer=MakeReply, seconds=SECONDS)
        except GroupError:
            del self._groups[cards]
            raise
        arrays = load_file(folder / f"video{decode_rank(recipe.deployment)}.safetensors")
        memory = [reply.memory for reply in replies]
        frames, sound = arrays.pop("frames"), arrays.pop("sound")
        latents = [arrays[f"latents{index}"] for index in range(len(arrays))]
        return Made(latents=latents, frames=frames, sound=sound, memory=memory)

    def _group(self, cards: int) -> tuple[RankGroup, Path]:
        if cards not in self._groups:
            self._started += 1
            folder = self._folder / f"group{self._started}"
            given = FuzzJob(folder=str(folder), fault=self._fault)
            job = Job(target="suites.fuzz.worker:run", given=given, world_size=cards, preload=PRELOAD)
            self._groups[cards] = RankGroup.start(job, folder), folder
        return self._groups[cards]

    def close(self) -> None:
        """End every group."""
        while self._groups:
            self._groups.popitem()[1][0].stop()


_pools: list[Pool] = []


def current_pool() -> Pool:
    """The pool of the innermost `pool`."""
    return _pools[-1]


@contextmanager
def pool(fault: str = "") -> Iterator[Pool]:
    """Rules inside run on ranks of a pool of their own, each with the fault injected."""
    with tempfile.TemporaryDirectory() as folder:
        _pools.append(Pool(Path(folder), fault))
        try:
            yield _pools[-1]
        finally:
            _pools.pop().close()
