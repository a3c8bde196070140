"""What a run told becomes its record: each field from where it belongs, readings in the order of ranks. No torch."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from canned import memory, ran_out

from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadData, InvalidRecipe, OutOfMemory
from liveavatar_core.recipes import named_recipe
from liveavatar_core.simulation.allocator_verdict import AllocatorVerdict
from suites.harness.cases.clip_rounds import ClipRounds
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import Case, Expectation, Tier
from suites.harness.messages import RankReport
from suites.harness.probes.video.quality import Quality
from suites.harness.processes.failures import GroupError, RankFailure
from suites.harness.records.build import build_record, host_machine
from suites.harness.records.expected_phases import expected_phases
from suites.harness.records.measurements import (
    CardConditions,
    MemoryTimeline,
    ObservedSettings,
    SimulatedRole,
    Timing,
)
from suites.harness.records.record import DeclaredRecipe, Failure
from suites.harness.records.run_result import RunResult, failed_result
from suites.harness.records.working_tree import commit_at_start

CASE = Case(name="case", recipe="bf16_sharded", expect=Expectation(outcome="pass", because="it fits"))
TIER = Tier(name="tier", title="cards", cards=2, card="RTX 4090", cases=(CASE,))
ROUNDS = ClipRounds(warm_up=0, measured=1)
ALL = ("load", "encode", "prefill", "denoise", "decode")


def plan(folder: Path, hardware: str = "miniature") -> RunPlan:
    recipe = named_recipe("bf16_sharded", 2)
    return RunPlan(
        tier=TIER,
        case=CASE,
        hardware=hardware,
        recipe=recipe,
        limit_bytes=7,
        host_limit_bytes=9,
        folder=folder,
        rounds=ROUNDS,
    )


def told(rank: int, **changes) -> RankReport:
    timeline = MemoryTimeline(rank=rank, phases=("load",), starts=(0,), bytes_by_category={"parameters": (1,)})
    observed = ObservedSettings(rank=rank, transformer_forwards={}, parameter_bytes={}, kv_caches=())
    return RankReport(
        memory=(memory(rank, "load", 1.0), memory(rank, "denoise", 2.0)),
        timeline=timeline,
        observed=observed,
        allocator=AllocatorVerdict(outcome="fits", reserved_peak_bytes=rank, retries=0),
        **changes,
    )


RESULT = RunResult(
    outcome="pass",
    reports=(
        told(1, card_conditions=CardConditions(slowed_by=("power cap", "heat"), most_watts=300.0)),
        told(0, card_conditions=CardConditions(slowed_by=("heat",), most_watts=450.0)),
    ),
    timing=Timing(load_seconds=3.0),
    quality=Quality(values={"psnr_db": 40.0}, missing={"ssim": "too short"}),
    simulated_roles=(SimulatedRole(rank=0, stands_for=(0, 1), units_executed=1, units_repeated=2),),
)


def test_a_record_has_all_that_was_told_in_the_order_of_ranks(tmp_path: Path):
    machine = host_machine("miniature", 2, RESULT.reports)
    made = build_record(plan(tmp_path), RESULT, machine)
    assert (made.tier, made.case, made.hardware, made.emulated) == ("tier", "case", "miniature", True)
    assert (made.recipe, made.machine) == (DeclaredRecipe.of(named_recipe("bf16_sharded", 2)), machine)
    assert (made.limit_bytes, made.host_limit_bytes, made.outcome) == (7, 9, "pass")
    assert made.expected_phases == {"0": ALL, "1": ALL}
    assert [(each.rank, each.phase) for each in made.memory] == [
        (0, "load"), (0, "denoise"), (1, "load"), (1, "denoise")
    ]  # fmt: skip
    assert {rank: each.reserved_peak_bytes for rank, each in made.allocators.items()} == {"0": 0, "1": 1}
    assert [each.rank for each in made.timelines] == [each.rank for each in made.observed] == [0, 1]
    assert (made.timing, made.simulated_roles) == (RESULT.timing, RESULT.simulated_roles)
    assert made.card_conditions == CardConditions(slowed_by=("heat", "power cap"), most_watts=450.0)
    assert (made.quality, made.quality_missing) == ({"psnr_db": 40.0}, {"ssim": "too short"})
    assert (made.out_of_memory, made.ranks_out_of_memory, made.failure) == (None, (), None)
    assert (made.commit, made.date, made.run) == (commit_at_start(), datetime.now(UTC).date(), "local")


def test_only_a_run_on_the_tiers_own_cards_is_not_emulated(tmp_path: Path):
    modes = ("physical", "partitioned", "simulated", "miniature")
    made = [build_record(plan(tmp_path, mode), RESULT, host_machine("c", 2, ())).emulated for mode in modes]
    assert made == [False, True, True, True]


def test_whoever_runs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIVEAVATAR_RUN", "nightly/412")
    assert build_record(plan(tmp_path), RESULT, host_machine("c", 2, ())).run == "nightly/412"


def test_the_video_is_kept_as_what_is_there_and_only_of_a_run_that_passed(tmp_path: Path):
    machine = host_machine("c", 2, ())
    assert build_record(plan(tmp_path), RESULT, machine).video_format is None
    (tmp_path / "frames").mkdir()
    assert build_record(plan(tmp_path), RESULT, machine).video_format == "png"
    (tmp_path / "video.mp4").write_bytes(b"")
    assert build_record(plan(tmp_path), RESULT, machine).video_format == "mp4"
    crashed = replace(RESULT, outcome="crash", failure=Failure(message="crashed"))
    assert build_record(plan(tmp_path), crashed, machine).video_format is None


def test_ranks_that_told_nothing_leave_nothing(tmp_path: Path):
    silent = replace(RESULT, outcome="crash", failure=Failure(message="crashed"), reports=(RankReport(), told(1)))
    made = build_record(plan(tmp_path), silent, host_machine("c", 2, silent.reports))
    assert made.failure == Failure(message="crashed")
    assert [each.rank for each in made.observed] == [each.rank for each in made.timelines] == [1]
    assert (made.ranks, list(made.allocators)) == ((1,), ["1"])
    assert made.card_conditions == CardConditions()


def test_software_is_what_the_first_rank_that_knew_it_told_of():
    reports = (RankReport(torch="2.13.0"), RankReport(torch="2.12.0", cuda="13.0", cpu_kernels="native"))
    made = host_machine("RTX 4090", 2, reports, link="shm", driver="570.1")
    assert (made.card, made.cards, made.link, made.driver) == ("RTX 4090", 2, "shm", "570.1")
    assert (made.torch, made.cuda, made.cpu_kernels, made.allocator) == ("2.13.0", "13.0", "native", "tracker")
    assert (made.host_cpu, made.host_cores) == (platform.processor() or platform.machine(), os.cpu_count())
    assert host_machine("c", 1, (), allocator="default").allocator == "default"
    assert host_machine("c", 1, iter(reports)).cuda == "13.0", "told once, read three times"


def test_each_rank_must_have_what_its_role_goes_through():
    layout = Deployment(num_gpus_dit=2, ulysses_size=2, enable_vae_parallel=True)
    assert expected_phases(layout) == {
        "0": ("load", "encode", "prefill", "denoise"),
        "1": ("load", "encode", "prefill", "denoise"),
        "2": ("load", "encode", "decode"),
    }


def test_ranks_that_ran_out_are_named_and_the_first_one_speaks():
    shortage = ran_out().out_of_memory
    failures = [
        RankFailure(kind="oom", rank=1, message="short", error=OutOfMemory(shortage)),
        RankFailure(kind="crash", rank=0, message="lost a peer"),
        RankFailure(kind="oom", rank=2, message="short"),
    ]
    made = failed_result(GroupError(failures), RESULT.reports)
    assert (made.outcome, made.shortage, made.ranks_out_of_memory) == ("oom", shortage, (1, 2))
    assert (made.reports, made.failure) == (RESULT.reports, None)


def test_any_other_failure_keeps_its_kind_place_and_next_step():
    error = InvalidRecipe("no kernel for it", "choose another")
    lead = RankFailure(kind="unsupported", rank=1, phase="load", message="a\nb", detail="the log", error=error)
    made = failed_result(GroupError([lead]), RESULT.reports)
    assert (made.outcome, made.reports, made.shortage) == ("unsupported", RESULT.reports, None)
    assert made.failure == Failure(message="a", rank=1, phase="load", next_step="choose another", detail="the log")
    unknown = failed_result(GroupError([RankFailure(kind="hang", rank=0, message="silent")], "read the log"))
    assert unknown.failure == Failure(message="silent", rank=0, phase=None, next_step="read the log")
    assert (unknown.outcome, unknown.reports) == ("hang", ())


@pytest.mark.parametrize("wrong", [{"starts": (0, 1)}, {"bytes_by_category": {"parameters": ()}}])
def test_columns_of_a_timeline_are_of_one_length(wrong: dict):
    with pytest.raises(BadData) as caught:
        replace(told(3).timeline, **wrong)
    [(name, column)] = wrong.items()
    name, column = ("parameters", ()) if name == "bytes_by_category" else (name, column)
    assert (caught.value.what, caught.value.next_step) == (f"timeline of rank 3: {len(column)} {name}", "give 1")
