"""A checkpoint of some hundred MB, and ranks that really load it, each in a process of its own that tells what it took.

python tests/support/file_backed.py FOLDER SHARD RANK RANKS MEETING
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist

from liveavatar_core.config import ClipSpec, ModelParams, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.system import load_system
from liveavatar_core.parallel.world import join_world
from liveavatar_core.recipes import TINY
from liveavatar_core.weights.checkpoint import expected_shapes, open_checkpoint, write_checkpoint
from liveavatar_core.weights.names import COMPONENTS
from liveavatar_core.weights.random import SeededSource

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What one rank told of its loading."""

    read_bytes: int
    seconds: float
    read_seconds: float
    held_bytes: int
    """Bytes of the weights that stand there afterwards."""
    grown_bytes: int
    """The most that the process held meanwhile, beyond what it held before; mapped pages of files count."""
    checksum: float
    """Of every value that it holds."""


def model_of(layers: int) -> ModelParams:
    """A model of which the transformer is nearly everything: 28 MB a layer in bfloat16."""
    sizes = {"dim": 1024, "ffn_dim": 2816, "num_heads": 16, "num_layers": layers, "audio_inject_layers": (0, 1)}
    return replace(TINY, transformer=TransformerParams(**(asdict(TINY.transformer) | sizes)))


def write_model(folder: Path, layers: int, seed: int = 3) -> int:
    """Write such a checkpoint, seeded, in bfloat16; returns the bytes of its weights."""
    model = model_of(layers)
    shapes = {name: expected_shapes(name, model) for name in COMPONENTS}
    sources = {name: SeededSource(each, seed=seed, dtype=torch.bfloat16) for name, each in shapes.items()}
    write_checkpoint(folder, model, sources, shard_bytes=100 * 1000**2)
    return sum(2 * torch.Size(shape).numel() for each in shapes.values() for shape in each.values())


def recipe_of(layers: int, shard: str, ranks: int, dtype: str = "bfloat16") -> Recipe:
    """Every part over all ranks, or whole on one."""
    shared = {"num_gpus_dit": ranks, "ulysses_size": ranks, "shard": shard, "shard_scope": "everything"}
    deployment = Deployment(storage_dtype=dtype, lora="none", **(shared if ranks > 1 else {}))
    return Recipe(name="loaded", clip=ClipSpec(size="64*64"), model=model_of(layers), deployment=deployment)


def load_in_processes(folder: Path, layers: int, shard: str, ranks: int, dtype: str = "bfloat16") -> list[Loading]:
    """Every rank loads at the same time."""
    meeting = folder.parent / f"{shard}{ranks}{dtype}.meeting"
    meeting.unlink(missing_ok=True)
    given = [str(folder), str(layers), shard, str(ranks), dtype, str(meeting)]
    command = [sys.executable, __file__, *given]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True, env=environment)
        for rank in range(ranks)
    ]
    told = [process.communicate()[0] for process in started]
    assert not any(process.returncode for process in started)
    return [Loading(**json.loads(each.splitlines()[-1])) for each in told]


def _load(folder: Path, layers: int, shard: str, ranks: int, dtype: str, meeting: str, rank: int) -> Loading:
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    recipe = recipe_of(layers, shard, ranks, dtype)
    world = join_world(recipe.deployment, Memory(card=torch.device("cpu")))
    weights = {str(name): source for name, source in open_checkpoint(folder, recipe.model).items()}
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is what is held now
    system = load_system(recipe, world, weights)
    grown = _status("VmHWM") - before
    held = [each for part in system.parts.values() for each in part.parameters()]
    locals_ = [each.to_local() if hasattr(each, "to_local") else each for each in held]
    assert system.load is not None
    if ranks > 1:
        dist.destroy_process_group()
    return Loading(
        **asdict(system.load),
        held_bytes=sum(each.nbytes for each in locals_),
        grown_bytes=grown,
        checksum=sum(each.double().abs().sum().item() for each in locals_),
    )


def _status(field: str) -> int:
    """Bytes, as the kernel counts them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    folder, layers, shard, ranks, dtype, meeting, rank = sys.argv[1:]
    print(json.dumps(asdict(_load(Path(folder), int(layers), shard, int(ranks), dtype, meeting, int(rank)))))
