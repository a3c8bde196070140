"""Measures an all-gather: `python -m liveavatar_core.cli.doctor.all_gather RANKS BACKEND` prints its rate as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

SHARD_BYTES = {"nccl": 256 * 1024**2, "gloo": 4 * 1024**2}
"""What each rank gives: with NCCL as much as a block of the transformer, with gloo enough to see that it works."""
ROUNDS = 5


def main(ranks: int, backend: str) -> None:
    """Start a process a rank and print what rank 0 measured."""
    with tempfile.TemporaryDirectory() as folder:
        # Forked before anything touches CUDA: loading torch once is enough.
        start_processes(measure, args=(ranks, backend, folder), nprocs=ranks, start_method="fork")
        print((Path(folder) / "answer.json").read_text())


def measure(rank: int, ranks: int, backend: str, folder: str) -> None:
    """One rank: gather, time it, and as rank 0 write the median."""
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    shard = torch.zeros(SHARD_BYTES[backend], dtype=torch.uint8, device=device)
    whole = torch.empty(ranks * len(shard), dtype=torch.uint8, device=device)
    seconds = sorted(_timed(whole, shard) for _ in range(ROUNDS + 1))
    if rank == 0:
        received = (ranks - 1) * len(shard)
        answer = {"gb_s": received / seconds[ROUNDS // 2] / 1e9}
        (Path(folder) / "answer.json").write_text(json.dumps(answer))
    dist.destroy_process_group()


def _timed(whole: torch.Tensor, shard: torch.Tensor) -> float:
    dist.barrier()
    started = time.perf_counter()
    dist.all_gather_into_tensor(whole, shard)
    if shard.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
