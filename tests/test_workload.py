"""What runs are given: one workload for every way to start one, and the sizes that follow from it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from liveavatar_core.config import Recipe
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.simulation.cost.roofline import Operation
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.workload import WIDEST_ASPECT, Workload
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import read_tiers
from suites.harness.cases.workloads import HEAD, PORTRAIT, PROMPT, VOICE
from suites.harness.hardware.miniature import MiniatureMode
from suites.harness.multinode.torchrun_rank import plan_of
from suites.harness.workers.clips import read_inputs

AREAS = {"704*384": 704 * 384, "688*368": 688 * 368, "64*64": 64 * 64}


@given(st.sampled_from(list(AREAS.values())), st.integers(64, 4000), st.floats(1, WIDEST_ASPECT), st.booleans())
def test_no_portrait_makes_more_tokens_than_the_largest(area: int, side: int, aspect: float, upright: bool):
    size = (side, max(64, int(side / aspect)))
    width, height = reversed(size) if upright else size
    made = Workload(portrait_width=width, portrait_height=height).tokens_per_frame(area)
    assert made <= Workload.largest(area).tokens_per_frame(area)


def test_tokens_of_the_published_sizes():
    assert Workload.largest(AREAS["704*384"]).tokens_per_frame(AREAS["704*384"]) == 1056
    published = Workload.of_portrait("720x400")
    assert published.output_size(AREAS["688*368"]) == (384, 640)
    assert published.tokens_per_frame(AREAS["688*368"]) == 960


@pytest.mark.parametrize("size", ["720", "720x", "x400", "32x400", "720x4e2", "-720x400", "720x400x3"])
def test_what_is_no_size_of_a_portrait_is_refused(size: str):
    with pytest.raises(InvalidRecipe, match="is not WIDTHxHEIGHT"):
        Workload.of_portrait(size)


def test_content_and_prompt_are_declared_and_paths_are_not(tmp_path: Path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(PORTRAIT.read_bytes())
    shipped, copied = (Workload.of_files(path, VOICE, PROMPT) for path in (PORTRAIT, copy))
    other = tmp_path / "other.png"
    Image.new("RGB", (shipped.portrait_width, shipped.portrait_height)).save(other)
    painted = Workload.of_files(other, VOICE, PROMPT)
    hashes = [Recipe(name="", workload=each).hash for each in (shipped, copied, painted, replace(shipped, prompt="no"))]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_torchrun_and_pytest_run_the_same_recipe(tmp_path: Path):
    """They took different portraits once, with one hash."""
    for tier in read_tiers().values():
        for case in tier.cases:
            physical = RunPlan.full_size(tier, case, "physical", tmp_path).recipe
            assert plan_of(tier, case, "physical", tmp_path).recipe == physical
            assert physical.workload.image == str(PORTRAIT.resolve())
            small = plan_of(tier, case, "miniature", tmp_path).recipe
            assert small == MiniatureMode().plan(tier, case, tmp_path).recipe
            assert small.workload.image == str(HEAD.resolve())


def test_ranks_read_the_portrait_in_the_declared_shape_and_as_much_voice():
    tier = read_tiers()["gpu5x24"]
    recipe = tier.recipe(tier.case("published_sharded"))
    inputs = read_inputs(recipe)
    assert inputs.image.size == (720, 400)
    assert len(inputs.waveform) == int(17.72 * 16_000)
    long = replace(recipe, clip=replace(recipe.clip, num_clip=20))
    assert len(read_inputs(long).waveform) == 20 * 48 * 16_000 // 25, "said again where clips last longer"


def test_a_given_workload_takes_the_place_of_every_other(tmp_path: Path):
    mine = Workload.of_files(HEAD, VOICE, "She speaks.")
    tier = read_tiers(workload=mine)["gpu5x24"]
    case = tier.case("published_sharded")
    assert tier.recipe(case).workload == mine
    assert MiniatureMode().plan(tier, case, tmp_path).recipe.workload == mine


def test_reading_tiers_opens_no_portrait_and_no_voice():
    """Every session reads them, and most run something else."""
    code = (
        "import sys; from suites.harness.cases.tiers import read_tiers; read_tiers();"
        " sys.exit(', '.join({'PIL', 'numpy', 'soundfile', 'av'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def flops(work: dict[Operation, int], phase: str) -> int:
    return sum(operation.flops * times for operation, times in work.items() if operation.phase == phase)


def test_the_last_clip_is_counted_apart_from_the_first():
    recipe = miniature(named_recipe("single", 1))
    made = {
        clips: simulate_rank(replace(recipe, clip=replace(recipe.clip, num_clip=clips)), 0, Capacity())
        for clips in (1, 3, 4)
    }
    assert made[1].first_clip_work == made[1].last_clip_work == made[1].work
    assert made[3].last_clip_work == made[4].last_clip_work, "one more clip is one more clip"
    assert flops(made[3].first_clip_work, "denoise") < flops(made[3].last_clip_work, "denoise"), "caches fill"
    assert flops(made[4].work, "denoise") == flops(made[3].work, "denoise") + flops(made[4].last_clip_work, "denoise")
