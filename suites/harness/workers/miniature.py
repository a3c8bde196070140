"""What a rank's process does in the miniature mode: really run a small model on the CPU, counted by a ledger."""

from __future__ import annotations

import torch
import torch.distributed as dist

from liveavatar_core.config import Recipe
from liveavatar_core.deploy.memory import Memory
from liveavatar_core.deploy.system import seeded_weights
from liveavatar_core.deploy.world import join_world
from liveavatar_core.pipeline import load_avatar
from liveavatar_core.simulation.ledger import Capacity, Ledger
from suites.harness.channel import ChildLink
from suites.harness.workers.clips import make_video, read_inputs
from suites.harness.workers.readings import ledger_readings


def run(link: ChildLink) -> None:
    """Commands: `load`, then `clip` until it answers that there are no more, then `finish`.

    Payload: recipe, capacity_bytes, image, audio, prompt, video (path of the mp4).
    """
    recipe: Recipe = link.payload["recipe"]
    ledger = Ledger(rank=link.rank, capacity=Capacity(card=link.payload["capacity_bytes"]))
    ledger.on_phase = lambda phase: _tell(link, ledger, phase)
    if link.world_size > 1:
        dist.init_process_group("gloo", init_method=link.rendezvous, rank=link.rank, world_size=link.world_size)
    inputs = read_inputs(link.payload)
    link.next_command()
    try:
        world = join_world(recipe.deployment, Memory(card=torch.device("cpu")))
        weights = seeded_weights(recipe)
        with ledger:
            avatar = load_avatar(recipe, world, weights)
            link.reply({})
            make_video(
                link,
                avatar.generate(inputs),
                lambda: {"memory": ledger_readings(link.rank, ledger.peaks), "torch": torch.__version__},
            )
    finally:
        _tell(link, ledger, next(reversed(ledger.peaks), "load"))
    if link.world_size > 1:
        dist.destroy_process_group()


def _tell(link: ChildLink, ledger: Ledger, phase: str) -> None:
    """Send what is known so far, so that a rank that fails leaves its readings behind."""
    link.event({"phase": phase, "memory": ledger_readings(link.rank, ledger.peaks)})
