"""One way to train a stage: seeded steps that resume where they stopped, a log of text, weights that are averages."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tiny_avatar.training.muon import Muon

Losses = dict[str, Tensor]
"""The losses of a step by name; `loss` is minimised, all are logged."""
_WARM_UP_STEPS = 20
_CLIP_NORM = 1.0
_AT_THE_ENDS = re.compile(r"embed|patch|probe|modulation|cond_mask|padding|lora|head\.head|^weights$")
"""Names of weights that are no maps from layer to layer."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training, whose name is that of its files."""

    name: str
    """Beginning of the names of its files: `<name>.pt` (state) and `<name>.jsonl` (log)."""
    folder: Path
    """The folder of these files."""
    steps: int
    """The number of steps to take."""
    rate: float
    """Learning rate of matrices (Muon) at its highest; it ends at a fiftieth."""
    adam_rate: float = 2e-3
    """Learning rate of everything else (Adam) at its highest."""
    average: float = 0.99
    """Share of the old in the moving average of weights."""
    save_seconds: float = 60.0
    """Seconds between two states on disk."""
    seed: int = 0
    """Step k draws everything from (seed, k), so that a resumed training is the same training."""


def train(stage: Stage, module: nn.Module, losses: Callable[[np.random.Generator], Losses]) -> nn.Module:
    """Train `module` in place and leave it with the averaged weights; resumes from the stage's state."""
    optimizers = _optimizers(stage, module)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    averages = [weight.detach().clone() for weight in weights]
    first = _resume(stage, module, optimizers, averages)
    started = saved = time.monotonic()
    for step in range(first, stage.steps):
        values = _step(stage, step, module, optimizers, losses)
        _update(averages, weights, min(stage.average, (step + 1) / (step + 10)))
        if step % 20 == 19 or step + 1 == stage.steps:
            _log(stage, step + 1, values, time.monotonic() - started)
        if time.monotonic() - saved > stage.save_seconds or step + 1 == stage.steps:
            _save(stage, step + 1, module, optimizers, averages)
            saved = time.monotonic()
    _assign(weights, averages)
    return module


def _optimizers(stage: Stage, module: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside, Adam for vectors, embeddings, and what stands at either end."""
    inside: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in module.named_parameters():
        if not weight.requires_grad:
            continue
        matrix = weight.ndim >= 2 and min(weight.flatten(1).shape) > 1 and not _AT_THE_ENDS.search(name)
        (inside if matrix else rest).append(weight)
    muon = [Muon(inside, lr=stage.rate)] if inside else []
    return [*muon, torch.optim.Adam(rest, lr=stage.adam_rate, betas=(0.9, 0.95))]


def _step(
    stage: Stage,
    step: int,
    module: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    losses: Callable[[np.random.Generator], Losses],
) -> dict[str, float]:
    torch.manual_seed(stage.seed * 1_000_003 + step)
    for optimizer in optimizers:
        group = optimizer.param_groups[0]
        group["lr"] = group.setdefault("highest", group["lr"]) * _schedule(step, stage.steps)
    module.zero_grad(set_to_none=True)
    values = losses(np.random.default_rng((stage.seed, step)))
    values["loss"].backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), _CLIP_NORM)
    for optimizer in optimizers:
        optimizer.step()
    return {name: value.item() for name, value in values.items()} | {"norm": float(norm)}


def _schedule(step: int, steps: int) -> float:
    """Up over the first steps, then down along a cosine."""
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


@torch.no_grad()
def _update(averages: list[Tensor], weights: Iterable[Tensor], keep: float) -> None:
    for average, weight in zip(averages, weights, strict=True):
        average.lerp_(weight, 1 - keep)


@torch.no_grad()
def _assign(weights: Iterable[Tensor], averages: list[Tensor]) -> None:
    for weight, average in zip(weights, averages, strict=True):
        weight.copy_(average)


def _resume(stage: Stage, module: nn.Module, optimizers: list[torch.optim.Optimizer], averages: list[Tensor]) -> int:
    path = stage.folder / f"{stage.name}.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    module.load_state_dict(state["module"])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    for average, kept in zip(averages, state["averages"], strict=True):
        average.copy_(kept)
    return int(state["step"])


def _save(
    stage: Stage, step: int, module: nn.Module, optimizers: list[torch.optim.Optimizer], averages: list[Tensor]
) -> None:
    stage.folder.mkdir(parents=True, exist_ok=True)
    path = stage.folder / f"{stage.name}.pt"
    partial = path.with_suffix(".part")
    state = {"step": step, "module": module.state_dict(), "averages": averages}
    state["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
    with partial.open("wb") as file:
        torch.save(state, file)
        os.fsync(file.fileno())
    partial.rename(path)


def _log(stage: Stage, step: int, values: dict[str, float], seconds: float) -> None:
    stage.folder.mkdir(parents=True, exist_ok=True)
    line = {"step": step, **{name: round(value, 5) for name, value in values.items()}, "seconds": round(seconds)}
    with (stage.folder / f"{stage.name}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    told = " ".join(f"{name} {value:.4g}" for name, value in values.items())
    print(f"{stage.name} {step}/{stage.steps} {told} {seconds:.0f} s", file=sys.stderr, flush=True)
