"""A training that was stopped and started again is the same training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tiny_avatar.training.loop import Losses, Stage, train
from tiny_avatar.training.muon import orthogonal


def network() -> nn.Module:
    """Small, with matrices and vectors."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 2))


def losses(module: nn.Module, random: np.random.Generator) -> Losses:
    """A line to learn, with noise of the step's own."""
    x = torch.from_numpy(random.normal(size=(32, 4))).float()
    return {"loss": (module(x) - x[:, :2] + 0.01 * torch.randn(32, 2)).square().mean()}


def trained(stage: Stage) -> list[Tensor]:
    """Weights at the end."""
    module = network()
    train(stage, module, lambda random: losses(module, random))
    return [weight.detach() for weight in module.parameters()]


def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = Stage(name="whole", folder=tmp_path, steps=30, rate=0.02)
    stopped = replace(whole, name="stopped", save_seconds=0.0)
    module, calls = network(), 0

    def interrupted(random: np.random.Generator) -> Losses:
        nonlocal calls
        calls += 1
        if calls == 13:
            raise KeyboardInterrupt
        return losses(module, random)

    with pytest.raises(KeyboardInterrupt):
        train(stopped, module, interrupted)
    for resumed, uninterrupted in zip(trained(stopped), trained(whole), strict=True):
        assert torch.equal(resumed, uninterrupted)


def test_it_learns_and_says_so(tmp_path: Path) -> None:
    trained(Stage(name="line", folder=tmp_path, steps=300, rate=0.02))
    lines = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(20, 301, 20))
    assert lines[-1]["loss"] < 0.1 * lines[0]["loss"]


def test_frozen_weights_stay(tmp_path: Path) -> None:
    module = network()
    module[0].requires_grad_(False)
    before = module[0].weight.clone()
    train(Stage(name="half", folder=tmp_path, steps=5, rate=0.02), module, lambda random: losses(module, random))
    assert torch.equal(module[0].weight, before)


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4)])
def test_updates_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3
