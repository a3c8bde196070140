"""The Slurm script, with two real launch agents that meet on loopback. Slurm itself is stood in for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE

from ci.tier_options import main, tier_options
from liveavatar_core.errors import MemoryShortage, OutOfMemory
from suites.harness.cases.tiers import read_tiers
from suites.harness.messages import RankReport
from suites.harness.multinode import __main__ as apart
from suites.harness.multinode.gather import gather
from suites.harness.multinode.rank_file import RankFile
from suites.harness.multinode.torchrun_rank import plan_of
from suites.harness.processes.link import ErrorReport
from suites.harness.records.record import read_record
from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

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
    ours |= {"HARDWARE": "miniature", "REPORT": str(tmp_path / "report")}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "n[1-2]"}

    def run(*arguments):
        command = ["bash", ROOT / "ci/slurm/tier.sbatch", *arguments]
        env = os.environ | slurm | ours | path
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)

    return run


@pytest.mark.nightly
def test_a_tier_over_two_nodes_makes_a_video(job, tmp_path):
    """Three ranks: two under the first agent, one under the second."""
    video = tmp_path / "out.mp4"
    inputs = ("--image", "assets/portrait.png", "--audio", "assets/voice.wav", "--save_file", str(video))
    done = job("lab", "sharded", *SMALL, *inputs)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "12 frames" in done.stdout
    assert video.stat().st_size > 1000


def small_tier(capacity_mib: float) -> str:
    return TIER.replace('recipe = "bf', f'miniature_capacity_mib = {capacity_mib}\nrecipe = "bf')


def test_a_tier_over_two_nodes_leaves_a_record_and_a_verdict(job, tmp_path):
    (tmp_path / "tiers.toml").write_text(small_tier(64.0))
    done = job("lab", "sharded")
    assert done.returncode == 0, done.stderr[-3000:]
    record = read_record(tmp_path / "report/records/lab.sharded.miniature.json")
    assert (record.outcome, record.ranks, len(record.timing.clip_seconds)) == ("pass", (0, 1, 2), 1)
    assert record.machine.link == "shm, 2 nodes", "never compared with a run on one machine"
    assert record.quality["nan_blocks_count"] == 0
    assert all(each.transformer_forwards["denoise"] for each in record.observed)
    assert "lab miniature" in done.stdout


def test_a_card_that_is_too_small_is_an_outcome_of_the_record(tmp_path, capsys):
    """And a failure of the job, as the tier expects a pass."""
    alone = small_tier(2.0).replace("cards = 3", "cards = 1").replace("bf16_sharded", "single")
    (tmp_path / "tiers.toml").write_text(alone)
    run = ["lab", "sharded", str(tmp_path), "--hardware=miniature", f"--tiers={tmp_path / 'tiers.toml'}"]
    environment = os.environ | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "OMP_NUM_THREADS": "1"}
    rank = [sys.executable, "-m", "suites.harness.multinode", "rank", *run]
    quiet = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run(rank, cwd=ROOT, env=environment, timeout=PATIENCE, **quiet)
    assert done.returncode == 2, done.stderr
    status = apart.main(["record", *run, f"--report-dir={tmp_path}", f"--baseline-dir={tmp_path}"])
    record = read_record(tmp_path / "records/lab.sharded.miniature.json")
    assert (record.outcome, record.out_of_memory.capacity) == ("oom", 2 * 1024**2)
    assert status == EXIT_CODES[Verdict.OUTCOME_CHANGED]
    assert "outcome-changed: lab/sharded on miniature cards" in capsys.readouterr().out


def test_ranks_that_left_nothing_are_a_crash(tmp_path):
    """A node that never came up."""
    tier = read_tiers()["gpu5x80"]
    record = gather(plan_of(tier, tier.case("timestep_pipeline"), "physical", tmp_path), nodes=2)
    assert (record.outcome, record.failure.rank) == ("crash", 0)
    assert "ended without finishing; it had answered 0 commands" in record.failure.message


LOST = RuntimeError("Connection closed by peer")
SHORT = MemoryShortage(rank=1, phase="load", category="parameters", requested=9, free=1, capacity=10)
CAUSES = {"oom": OutOfMemory(SHORT), "crash": ValueError("no")}


@pytest.mark.parametrize(("outcome", "cause"), CAUSES.items())
def test_the_rank_that_failed_is_to_blame_and_not_those_it_left_behind(tmp_path, outcome, cause):
    """Rank 0 lost its peer, rank 1 failed, the others were ended by their launch agent."""
    for rank, error in enumerate((LOST, cause)):
        RankFile(last_report=RankReport(phase="load"), error=ErrorReport.of(error)).write(tmp_path / f"rank{rank}.json")
    tier = read_tiers()["gpu5x80"]
    record = gather(plan_of(tier, tier.case("timestep_pipeline"), "miniature", tmp_path), nodes=2)
    assert (record.outcome, (record.out_of_memory or record.failure).rank) == (outcome, 1)


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
    from liveavatar_core.cli.generate import read_recipe
    from liveavatar_core.cli.main import make_parser

    needed = ["--image", "a.png", "--audio", "a.wav", "--prompt", "x", "--seeded_weights", "14b"]
    for tier in read_tiers().values():
        for case in tier.cases:
            given = tier_options(tier.name, case.name)[1:]
            recipe = read_recipe(make_parser().parse_args(["generate", *needed, *given]))
            assert (recipe.clip, recipe.deployment) == (tier.recipe(case).clip, tier.recipe(case).deployment)


SBATCH = """#!/bin/bash
# Runs each task of an array at once, and what is wrapped; prints the number of the job.
count=$(ls "$STATE" | wc -l); touch "$STATE/$count"
export SLURM_ARRAY_JOB_ID=$((100 + count)) SLURM_SUBMIT_DIR=$PWD
while [ $# -gt 0 ]; do
    case "$1" in
        --array=0-*) last=${1#--array=0-} ;;
        --wrap) exec bash -c "$2" >&2 ;;
        --*) ;;
        *) break ;;
    esac
    shift
done
for SLURM_ARRAY_TASK_ID in $(seq 0 "$last"); do export SLURM_ARRAY_TASK_ID; bash "$@" >&2; done
echo "$SLURM_ARRAY_JOB_ID;cluster"
"""
TWO_TIERS = """
[{name}]
title = "one card of {name}"
cards = 1
card = "RTX 4090"

[{name}.cases.quick]
recipe = "single"
clip = {{ infer_frames = 12, sample_steps = 2, num_clip = 1 }}
miniature_capacity_mib = 64
expect = {{ outcome = "pass", because = "it is tiny" }}
"""


def test_a_fleet_runs_every_tier_on_every_kind_of_machine_and_becomes_one_page(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "bin/sbatch").write_text(SBATCH)
    (tmp_path / "bin/sbatch").chmod(0o755)
    (tmp_path / "tiers.toml").write_text("".join(TWO_TIERS.format(name=name) for name in ("lab1", "lab2")))
    ours = {"TIERS": str(tmp_path / "tiers.toml"), "HARDWARE": "miniature", "REPORT": str(tmp_path / "report")}
    ours |= {"HISTORY": str(tmp_path / "history"), "STATE": str(tmp_path / "state"), "OMP_NUM_THREADS": "1"}
    environment = os.environ | ours | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    kinds = ("--constraint=a --gpus-per-node=1: lab1 lab2", "--constraint=b: lab1")
    command = ["bash", "ci/slurm/fleet.sh", *kinds]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    page = tmp_path / "report/fleet.html"
    assert page.exists(), done.stderr[-3000:]
    assert len(list((tmp_path / "report").glob("*/records/*.json"))) == 3
    assert len(list((tmp_path / "history").rglob("*.json"))) == 3
    assert page.read_text().count("<article") == 3
    assert done.stderr.count("lab1 miniature") >= 2


def test_a_fleet_of_nothing_is_refused(tmp_path, capsys):
    from suites.harness.report.fleet import main as fleet

    assert fleet([str(tmp_path), "--html", str(tmp_path / "page.html")]) == 2
    assert "holds no run record\nnext: " in capsys.readouterr().err
