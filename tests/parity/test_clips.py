"""Latents of whole clips, with and without a second prefill between them, from stored conditions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dit import DitCase, assert_near
from safetensors.torch import load_file
from torch import Tensor

from liveavatar_core.model.cache import KVCache
from liveavatar_core.model.state import ConditionState
from liveavatar_core.model.transformer import Prefill
from liveavatar_core.sampling import denoise_block, schedule


def prefill(case: DitCase, given: dict[str, Tensor], run: dict[str, Any]) -> ConditionState:
    padding = case.params.text_len - len(given["context"])
    return case.model(
        Prefill(
            reference_BCFHW=given["ref_latents"],
            motion_BCFHW=given["motion_latents_last19"],
            text_BKE=torch.nn.functional.pad(given["context"], (0, 0, 0, padding))[None],
            timesteps=schedule(run["sample_steps"]).timesteps,
            relative_dist=run["relative_dist"],
            float16_rotary_tables=True,
        )
    )


def denoise_clip(
    case: DitCase, state: ConditionState, caches: list[KVCache], given: dict[str, Tensor], clip: int
) -> Tensor:
    blocks = []
    for first in range(0, case.clip_frames, case.frames):
        frame = clip * case.clip_frames + first
        audio = given["audio_emb"][..., 4 * frame : 4 * (frame + case.frames)]
        noise = given[f"noise_clip{clip}"][None, :, first : first + case.frames]
        blocks.append(denoise_block(case.model, state, caches, audio, noise, frame))
    return torch.cat(blocks, dim=2)[0]


@torch.no_grad()
@pytest.mark.parametrize("online", [False, True], ids=["one_sink", "second_prefill"])
def test_latents_of_every_clip(pipeline_case: Path, online: bool):
    case = DitCase(pipeline_case.parent / "dit_tiny")
    given = {key: x.float() for key, x in load_file(pipeline_case / "conditioning.safetensors").items()}
    runs = json.loads((pipeline_case / "meta.json").read_text())["runs"].values()
    for run in (run for run in runs if run["enable_online_decode"] is online):
        golden = load_file(pipeline_case / run["file"])
        state = prefill(case, given, run)
        tokens = case.clip_frames * state.frame_tokens
        caches = [
            KVCache.allocate(case.params, 1, tokens, case.params.num_heads, torch.float32, "cpu")
            for _ in state.timesteps
        ]
        first = denoise_clip(case, state, caches, given, 0)
        if online:
            reference, motion = golden["ref_latents_clip1"], golden["motion_latents_clip1_last19"]
            assert_near(first[None, :, :1], reference, 5e-5)
            case.model(Prefill(reference_BCFHW=reference, motion_BCFHW=motion, state=state))
            assert_near(denoise_clip(case, state, caches, given, 1), golden["latents_clip1"], 5e-5)
        else:
            second = denoise_clip(case, state, caches, given, 1)
            assert_near(torch.stack([first, second]), golden["latents"], 5e-5)
