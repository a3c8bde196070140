"""The Slurm script, with two real launch agents that meet on loopback. Slurm itself is stood in for."""

import os
import subprocess
from pathlib import Path

import pytest

from ci.tier_options import main, tier_options

ROOT = Path(__file__).parents[2]

TIER = """
[lab]
title = "three cards on two machines"
cards = 3
card = "RTX 4090"

[lab.cases.sharded]
recipe = "bf16_sharded"
clip = { infer_frames = 12, sample_steps = 2 }
deployment = { lora_rank = 4 }
expect = { outcome = "pass", because = "it is tiny" }
"""
SCONTROL = "#!/bin/sh\necho 127.0.0.1\necho elsewhere\n"
SRUN = """#!/bin/bash
# A task on each of two nodes; the first that fails gives the exit status.
shift
SLURM_NODEID=1 "$@" & second=$!
SLURM_NODEID=0 "$@"; first=$?
wait $second; second=$?
exit $((first ? first : second))
"""
SMALL = ("--seeded_weights", "tiny", "--device", "cpu", "--size", "64*64", "--prompt", "She speaks.")


@pytest.fixture
def job(tmp_path):
    """Run the script as Slurm would on two nodes; returns the finished process."""
    for name, text in {"scontrol": SCONTROL, "srun": SRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "tiers.toml").write_text(TIER)
    slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "2"}
    ours = {"TIERS": str(tmp_path / "tiers.toml"), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "n[1-2]"}

    def run(*arguments):
        command = ["bash", ROOT / "ci/slurm/tier.sbatch", *arguments]
        env = os.environ | slurm | ours | path
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)

    return run


def test_a_tier_over_two_nodes_makes_a_video(job, tmp_path):
    """Three ranks: two under the first agent, one under the second."""
    video = tmp_path / "out.mp4"
    inputs = ("--image", "assets/portrait.png", "--audio", "assets/voice.wav", "--save_file", str(video))
    done = job("lab", "sharded", *SMALL, *inputs)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "12 frames" in done.stdout
    assert video.stat().st_size > 1000


def test_a_tier_that_is_not_there_ends_before_any_rank_starts(job):
    done = job("gpu9x99", "sharded")
    assert done.returncode == 2
    assert "there is no tier 'gpu9x99'\nnext: tiers: gpu4x24" in done.stderr


def test_options_are_what_differs_from_generate(capsys):
    assert main(["gpu5x24", "published_replicated"]) == 0
    lines = capsys.readouterr().out.split()
    assert lines[0] == "5"
    assert "--num_gpus_dit=4" in lines
    assert "--enable_vae_parallel=True" in lines
    assert not [line for line in lines if "infer_frames" in line]


def test_options_are_read_back_by_generate_as_the_same_recipe():
    from liveavatar_core.cli import make_parser
    from liveavatar_core.commands.generate import read_recipe
    from suites.harness.tiers import read_tiers

    needed = ["--image", "a.png", "--audio", "a.wav", "--prompt", "x", "--seeded_weights", "14b"]
    for tier in read_tiers().values():
        for case in tier.cases:
            given = tier_options(tier.name, case.name)[1:]
            recipe = read_recipe(make_parser().parse_args(["generate", *needed, *given]))
            assert (recipe.clip, recipe.deployment) == (tier.recipe(case).clip, tier.recipe(case).deployment)
