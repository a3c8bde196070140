"""A setting that did not act is no pass, however good the numbers are."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

import pytest
from canned import passed
from fault_targets import WIDE

from liveavatar_core.config import Recipe
from liveavatar_core.parallel.ranks import distinct_ranks
from liveavatar_core.recipes import named_recipe
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.memory_account import Capacity
from suites.harness.cases.tiers import Case, Expectation, Tier
from suites.harness.hardware.miniature import MiniatureMode
from suites.harness.pytest_plugin.options import Settings
from suites.harness.records.measurements import ObservedSettings
from suites.harness.records.record import DeclaredRecipe
from suites.harness.verdicts.applied_settings import block_parameters, differences, unapplied
from suites.harness.verdicts.judge import judge
from suites.harness.verdicts.verdict import Verdict
from suites.harness.workers.simulate import observe, show_frames

RECIPES = {
    "single": 1,
    "published_sharded": 4,
    "published_replicated": 5,
    "timestep_pipeline": 3,
    "bf16_sharded": 3,
    "encoders_on_host": 3,
    "text_on_decode_rank": 3,
    "fp8_ulysses": 2,
    "fp8": 1,
    "block_offload": 1,
    "block_offload_int8": 1,
}


def small(name: str, **deployment) -> Recipe:
    recipe = named_recipe(name, RECIPES[name])
    clip = replace(recipe.clip, size="64*64", infer_frames=24)
    layout = replace(recipe.deployment, lora_rank=4, **deployment)
    return replace(recipe, model=WIDE, clip=clip, deployment=layout)


@cache
def seen(recipe: Recipe, rank: int = 0) -> ObservedSettings:
    """What a simulation of that rank really did."""
    observers: list = []
    watch = {"observe": partial(observe, observers), "show": partial(show_frames, observers)}
    simulate_rank(recipe, rank, Capacity(), **watch)
    return observers[0].report(rank)


@pytest.mark.parametrize("name", RECIPES)
def test_what_every_layout_does_is_what_it_declares(name: str):
    recipe = small(name)
    for rank in distinct_ranks(recipe.deployment):
        assert list(differences(recipe, rank, seen(recipe, rank))) == []


@pytest.mark.parametrize(
    ("name", "without", "named"),
    [
        ("bf16_sharded", {"storage_dtype": "float32"}, "storage_dtype"),
        ("published_replicated", {"shard": "none"}, "shard flat"),
        ("bf16_sharded", {"offload_kv_cache": False}, "offload_kv_cache"),
        ("fp8", {"fp8": False}, "bytes in float8_e4m3fn"),
        ("fp8", {"fp8_kv_cache": False}, "fp8_kv_cache"),
        ("fp8", {"offload_model": False}, "offload_model"),
        ("fp8", {"fp8": False, "int8": True}, "int8"),
        ("block_offload", {"offload_blocks": False, "offload_model": False}, "offload_blocks"),
        ("encoders_on_host", {"t5_cpu": False}, "t5_cpu"),
        ("text_on_decode_rank", {"t5_on_decode_rank": False}, "t5_on_decode_rank"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_setting_that_did_not_act_is_named(name: str, without: dict, named: str):
    """The run really had the other setting, and its record declares this one."""
    found = list(differences(small(name), 0, seen(small(name, **without))))
    assert found
    assert any(named in text for text in found), found


@pytest.mark.parametrize(
    "declared",
    [{"sample_steps": 3}, {"sample_steps": 5}, {"infer_frames": 48}],
    ids=str,
)
def test_fewer_or_more_steps_than_declared_are_seen(declared: dict):
    recipe = small("single")
    other = replace(recipe, clip=replace(recipe.clip, **declared))
    assert any("denoising forwards" in text for text in differences(other, 0, seen(recipe)))


def test_who_shows_what_is_not_its_work_is_seen():
    """A rank that only computes the transformer decodes nothing, and one that only decodes denoises nothing."""
    recipe = small("text_on_decode_rank")
    first, last = (seen(recipe, rank) for rank in (0, 2))
    assert (first.latent_sizes, first.frame_sizes) == (last.frame_sizes and ("8x8",), ())
    [found] = differences(recipe, 0, replace(first, frame_sizes=("64x64",)))
    assert found.startswith("frames of 64x64 against nothing")
    [found] = differences(recipe, 2, replace(last, latent_sizes=("8x8",)))
    assert found.startswith("latents of 8x8 against nothing")


def test_the_bound_is_most_of_the_published_transformer():
    """351.394304 M parameters a block, of which biases and norms are not counted."""
    assert block_parameters(named_recipe("single", 1)) / 40 == pytest.approx(351.394304e6, rel=5e-4)


def uncompared(folder: Path) -> Settings:
    return Settings(
        hardware=("miniature",),
        require_hardware=False,
        tiers=(),
        baseline_dir=folder,
        baseline_update="no",
        baseline_compare="off",
        baseline_reason=None,
        report_dir=folder,
        history=None,
    )


EXPECTED = Expectation(outcome="pass", because="small")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory):
    """Of two real processes."""
    case = Case(name="case", recipe="bf16_sharded", expect=EXPECTED, miniature_capacity_mib=64)
    tier = Tier(name="gpu5x24", title="cards", cards=2, card="RTX 4090", cases=(case,))
    return MiniatureMode(shrink=shrunk).run(tier, case, tmp_path_factory.mktemp("run"))


def shrunk(recipe: Recipe) -> Recipe:
    return replace(small("bf16_sharded"), deployment=replace(recipe.deployment, lora_rank=4))


def declaring(record, **deployment):
    """`record` with another declaration."""
    declared = record.recipe.declared
    changed = declared | {"deployment": declared["deployment"] | deployment}
    return replace(record, recipe=replace(record.recipe, declared=changed))


def test_a_real_run_is_judged_by_what_its_ranks_did(record):
    assert record.outcome == "pass", record.failure
    assert [each.rank for each in record.observed] == [0, 1]
    assert unapplied(record) == []
    found = unapplied(declaring(record, storage_dtype="float32", compute_dtype="float32"))
    assert {each.verdict for each in found} == {Verdict.SETTING_NOT_APPLIED}
    assert any("rank 1: transformer kept in bfloat16 against float32" in each.what for each in found)


def test_a_rank_that_tells_nothing_is_no_pass(record):
    [found] = unapplied(replace(record, observed=record.observed[:1]))
    assert "rank 1: it told nothing" in found.what


def test_the_verdict_is_the_judges(record, tmp_path: Path):
    judgement = judge(declaring(record, offload_kv_cache=False), EXPECTED, uncompared(tmp_path))
    assert (judgement.verdict, judgement.failing) == (Verdict.SETTING_NOT_APPLIED, True)
    assert judge(record, EXPECTED, uncompared(tmp_path)).verdict is Verdict.NOT_COMPARED


def test_what_a_full_size_record_declares_can_be_read():
    declared = DeclaredRecipe.of(named_recipe("timestep_pipeline", 5))
    assert len(unapplied(passed(recipe=declared))) == 5, "five ranks told nothing"
    assert asdict(declared)["declared"]["deployment"]["timestep_pipeline"] is True
