"""The original's timestep pipeline, a process a rank: what each rank hands on, and the frames, equal the reference."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipeline import Stage, assert_stages, latent_stages
from pipeline_ranks import Given
from safetensors.torch import load_file
from torch import Tensor
from waiting import PATIENCE

from liveavatar_core.config import ORIGINAL_TIMESTEP
from liveavatar_core.deployment import Deployment
from suites.harness.processes.link import Done
from suites.harness.processes.rank_group import Job, RankGroup

PRELOAD = ("torch", "liveavatar_core.pipeline")


def run_ranks(case: Path, folder: Path) -> list[dict[str, Tensor]]:
    """What each rank wrote down, by rank."""
    meta = json.loads((case / "meta.json").read_text())
    found = re.search(r"(\w+)/conditioning", meta["inputs"])
    assert found
    steps = meta["num_gpus_dit"]
    deployment = Deployment(
        num_gpus_dit=steps,
        timestep_pipeline=True,
        enable_vae_parallel=True,
        storage_dtype="float32",
        compute_dtype="float32",
        lora="none",
    )
    given = Given(
        case=str(case.parent / found[1]),
        steps=steps,
        deployment=deployment,
        quirks=ORIGINAL_TIMESTEP,
        folder=str(folder),
    )
    job = Job(target="pipeline_ranks:run", given=given, world_size=meta["world_size"], preload=PRELOAD)
    with RankGroup.start(job, folder) as group:
        group.command("video", answer=Done, seconds=PATIENCE)
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(meta["world_size"])]


def conditioning_stages(made: list[dict[str, Tensor]], golden: dict[str, Tensor]) -> list[Stage]:
    names = {"reference": "ref_latents_clip0", "motion": "motion_latents"}
    return [
        Stage(f"{name} on rank {rank}", have[name], golden[stored], 1e-5)
        for name, stored in names.items()
        for rank, have in enumerate(made)
    ]


def handed_on_stages(made: list[dict[str, Tensor]], golden: dict[str, Tensor]) -> list[Stage]:
    sent = [re.fullmatch(r"rank(\d+)\.(clip\d+\.block\d+)\.sent", name) for name in golden]
    found = sorted((match[2], int(match[1]), match[0]) for match in sent if match)
    assert found
    return [
        Stage(f"{block} as sent by rank {rank}", made[rank][block], golden[name], 5e-5) for block, rank, name in found
    ]


def test_every_rank_equals_the_reference(pipeline_tpp_case: Path, tmp_path: Path):
    golden, made = load_file(pipeline_tpp_case / "tpp.safetensors"), run_ranks(pipeline_tpp_case, tmp_path)
    received = {
        (int(clip), int(index)): made[-1][f"clip{clip}.block{index}"]
        for clip, index in (re.findall(r"\d+", name) for name in made[-1] if name.startswith("clip"))
    }
    reference = Stage("reference of clip 1", received[0, 0][None, :, :1], golden["ref_latents_clip1"], 5e-5)
    assert_stages(
        [
            *conditioning_stages(made, golden),
            *handed_on_stages(made, golden),
            reference,
            *latent_stages(received, golden["latents"]),
            *Stage.of_frames(made[-1]["video"], golden),
        ]
    )
