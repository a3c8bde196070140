"""Schedule and denoising reproduce the reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from dit import DitCase, assert_near

from liveavatar_core.sampling import denoise_block, euler_step, schedule


def test_schedule(golden: Path):
    for steps, expected in json.loads((golden / "scheduler.json").read_text())["steps"].items():
        made = schedule(int(steps))
        assert made.timesteps == pytest.approx(expected["timesteps"], rel=1e-6)
        assert made.sigmas == pytest.approx(expected["sigmas"], rel=1e-6)


@torch.no_grad()
def test_denoising_step_by_step(dit_case: Path):
    case = DitCase(dit_case)
    golden, steps, state = case.file("denoise"), case.meta["extra"]["steps"], case.prefill()
    caches, sigmas = [case.cache() for _ in range(steps)], schedule(steps).sigmas
    for number in range(case.meta["extra"]["denoise_blocks"]):
        call = case.meta["calls"][number]
        latents, context = case.noise(call), case.context(call)
        for step in range(steps):
            flow = case.denoise(call, latents_BCFHW=latents, step=step, block=context, cache=caches[step], state=state)
            latents = euler_step(latents, flow, sigmas, step)
            assert_near(flow, golden[f"block{number}.step{step}.flow"], 5e-5)
            assert_near(latents[0], golden[f"block{number}.step{step}.latent"], 5e-5)


@torch.no_grad()
def test_a_whole_block_equals_its_steps(dit_case: Path):
    case = DitCase(dit_case)
    state, call = case.prefill(), case.meta["calls"][0]
    steps = range(len(case.timesteps))
    whole = denoise_block(case.model, state, [case.cache() for _ in steps], case.audio(call), case.noise(call), 0)
    latents = case.noise(call)
    for step in steps:
        flow = case.denoise(call, latents_BCFHW=latents, step=step, pose_BCFHW=None, cache=case.cache(), state=state)
        latents = euler_step(latents, flow, schedule(len(steps)).sigmas, step)
    assert_near(whole, latents, 1e-5)
