"""How long loading a checkpoint takes, against reading the same bytes plainly: real files, a process a rank.

    python -m benchmarks.load_rate [--layers N] [--rounds N] [--folder DIR]

Files are written once, seeded; before each reading and each loading their pages are dropped from the cache of the
kernel (POSIX_FADV_DONTNEED, after a sync). That holds for a disk of this machine: what a hypervisor, a network file
system or the disk itself keeps is not dropped, and then both sides of the ratio are those of that cache. The plain
reading is into one buffer, by as many threads and in pieces as large as loading uses.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist

from liveavatar_core.config import ClipSpec, ModelParams, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.load import PARTS, build_part
from liveavatar_core.parallel.system import load_system
from liveavatar_core.parallel.world import join_world
from liveavatar_core.recipes import TINY
from liveavatar_core.weights.checkpoint import expected_shapes, open_checkpoint, write_checkpoint
from liveavatar_core.weights.names import COMPONENTS
from liveavatar_core.weights.random import SeededSource
from liveavatar_core.weights.reading import PIECE_BYTES, READERS

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What one rank told of its loading."""

    read_bytes: int
    """Bytes read from files."""
    seconds: float
    """Seconds of loading."""
    read_seconds: float
    """Seconds of that spent on reading."""
    held_bytes: int
    """Bytes of the weights that stand there afterwards."""
    grown_bytes: int
    """The most that the process held meanwhile, beyond what it held before; mapped pages of files count."""
    checksum: float
    """Of every value that it holds."""


def model_of(layers: int) -> ModelParams:
    """A model of which the transformer is nearly everything: 113 MB a layer in bfloat16."""
    sizes = {"dim": 2048, "ffn_dim": 5632, "num_heads": 16, "num_layers": layers, "audio_inject_layers": (0, 1)}
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
    command = [sys.executable, __file__, "--rank", *given]
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
    for name in PARTS:  # what builds them is imported once, as in a rank that is forked from a parent that knows it
        build_part(name, recipe, torch.bfloat16)
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


def drop_from_cache(folder: Path) -> None:
    """Have the kernel forget the pages of every file in `folder`."""
    os.sync()  # pages that are not on the disk yet stay
    for path in _files(folder):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def read_plainly(folder: Path) -> float:
    """Seconds of reading every byte of every file in `folder`."""
    buffers = [memoryview(bytearray(PIECE_BYTES)) for _ in range(READERS)]
    started = time.monotonic()
    with ThreadPoolExecutor(READERS) as threads:
        for path in _files(folder):
            file = os.open(path, os.O_RDONLY)
            pieces = range(0, path.stat().st_size, PIECE_BYTES)
            for _ in threads.map(
                lambda at, file=file: os.preadv(file, [buffers[at // PIECE_BYTES % READERS]], at), pieces
            ):
                pass
            os.close(file)
    return time.monotonic() - started


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


LAYOUTS = (("none", 1, "bfloat16"), ("none", 1, "float32"), ("per_parameter", 2, "bfloat16"))
"""Sharding, ranks, and the type that weights are kept in; files hold bfloat16."""


def measure(folder: Path, layers: int, rounds: int) -> None:
    """Print seconds of loading in each layout, over those of plain reading in the same round."""
    for shard, ranks, dtype in LAYOUTS:
        ratios, plain, loaded, reading = [], [], [], []
        for _ in range(rounds):
            drop_from_cache(folder)
            plain.append(read_plainly(folder))
            drop_from_cache(folder)
            told = load_in_processes(folder, layers, shard, ranks, dtype)
            loaded.append(max(each.seconds for each in told))
            reading.append(max(each.read_seconds for each in told))
            ratios.append(loaded[-1] / plain[-1])
        size = sum(each.read_bytes for each in told)
        plainly, whole, waited, ratio = map(statistics.median, (plain, loaded, reading, ratios))
        print(
            f"{ranks} x {shard} {dtype}: {size / 1e9:.2f} GB, read plainly {plainly:.2f} s, loaded {whole:.2f} s"
            f" ({waited:.2f} of it reading), ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    """Parse options, write the checkpoint, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8, help="of the transformer: 113 MB each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to be measured")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        checkpoint = Path(folder) / "ckpt"
        write_model(checkpoint, given.layers)
        measure(checkpoint, given.layers, given.rounds)


if __name__ == "__main__":
    if "--rank" in sys.argv:
        where, layers, shard, ranks, dtype, meeting, rank = sys.argv[2:]
        print(json.dumps(asdict(_load(Path(where), int(layers), shard, int(ranks), dtype, meeting, int(rank)))))
    else:
        main()
