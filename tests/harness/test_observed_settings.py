"""A run proves that what its recipe asks for really acted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from fault_targets import smallest

from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.memory_account import Capacity
from suites.harness.cases.tiers import Case, Expectation, Tier
from suites.harness.hardware.miniature import MiniatureMode
from suites.harness.probes.observed_settings import SettingsObserver
from suites.harness.records.measurements import ObservedSettings
from suites.harness.workers.simulate import observe, show_frames

PASS = Expectation(outcome="pass", because="a model of this size fits anywhere")


def proven(folder: Path, recipe: str, cards: int, **deployment) -> tuple[ObservedSettings, ...]:
    """What each rank proved, and the sum of host memory that it was seen to take."""
    case = Case(name="case", recipe=recipe, deployment=deployment, expect=PASS, miniature_capacity_mib=64)
    tier = Tier(name="tier", title="cards", cards=cards, card="RTX 4090", cases=(case,))
    record = MiniatureMode(shrink=smallest).run(tier, case, folder)
    assert record.outcome == "pass", record.failure
    assert all(each.host_bytes is not None for each in record.memory)
    assert [each.rank for each in record.observed] == list(range(cards))
    return record.observed


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[ObservedSettings, ...]:
    return proven(tmp_path_factory.mktemp("sharded"), "published_sharded", 2)


def test_shards_types_places_and_forwards_are_counted(sharded: tuple[ObservedSettings, ...], tmp_path: Path):
    [whole] = proven(tmp_path, "single", 1)
    for rank in sharded:
        assert rank.kv_caches == ("bfloat16 host",)
        assert rank.transformer_forwards["denoise"] >= 1
        assert rank.transformer_forwards == sharded[0].transformer_forwards
        assert (rank.latent_sizes, set(rank.attention_kernels)) == (("8x8",), {"flash"})
    assert [rank.frame_sizes for rank in sharded] == [("64x64",)] * 2, "both decode"
    assert whole.kv_caches == ("bfloat16 card",)
    kinds = {kind for part in sharded[0].parameter_bytes.values() for kind in part}
    assert "float32 card" in kinds
    held = sum(rank.parameter_bytes["text_encoder"]["float32 card"] for rank in sharded)
    assert held >= 2 * sum(whole.parameter_bytes["text_encoder"].values())  # float32 against bfloat16, no copy twice
    assert held < 2.2 * sum(whole.parameter_bytes["text_encoder"].values())


def test_a_simulation_counts_what_really_running_counts(sharded: tuple[ObservedSettings, ...], tmp_path: Path):
    """Repeated units included; the simulated caches and weights are of the same types, in the same places."""
    case = Case(name="case", recipe="published_sharded", expect=PASS)
    tier = Tier(name="t", title="t", cards=2, card="RTX 4090", cases=(case,))
    recipe = MiniatureMode(shrink=smallest).plan(tier, case, tmp_path).recipe
    for rank in range(2):
        observers: list[SettingsObserver] = []
        watch = {"observe": partial(observe, observers), "show": partial(show_frames, observers)}
        simulate_rank(recipe, rank, Capacity(), **watch)
        assert observers[0].report(rank) == replace(sharded[rank], attention_kernels={}), "which nothing computes there"


def test_a_run_that_ended_before_anything_acted_observed_nothing(tmp_path: Path):
    case = Case(name="case", recipe="single", expect=PASS, miniature_capacity_mib=0.01)
    tier = Tier(name="tier", title="card", cards=1, card="RTX 4090", cases=(case,))
    record = MiniatureMode(shrink=smallest).run(tier, case, tmp_path)
    assert record.out_of_memory.phase == "load"
    assert record.observed == ()
