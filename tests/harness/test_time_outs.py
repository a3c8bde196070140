"""Whoever waits in vain says so before everything is ended, and is not blamed: the rank that never came is."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from canned import passed
from launch_targets import Given
from waiting import PATIENCE

from liveavatar_core.config import Recipe
from liveavatar_core.errors import BadInput
from suites.harness.cases.tiers import read_tiers
from suites.harness.hardware.on_cards import CLIP_SECONDS, HEARTBEAT, TIME_OUTS, nccl_environment
from suites.harness.messages import ClipJob, RankReport
from suites.harness.multinode.gather import gather
from suites.harness.multinode.rank_file import RankFile
from suites.harness.multinode.torchrun_rank import plan_of
from suites.harness.processes import failures
from suites.harness.processes.link import Done, ErrorReport
from suites.harness.processes.rank_group import GroupError, Job, RankGroup
from suites.harness.processes.time_outs import TimeOuts
from suites.harness.workers.clips import join_group

WATCHDOG = (
    "[rank0]:[E321 02:07:08.408 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout:"
    " WorkNCCL(SeqNum=1580, OpType=ALLGATHER, Timeout(ms)=300000) ran for 300060 milliseconds before timing out."
)
"""As torch 2.4 to 2.7 write it (github.com/hiyouga/LlamaFactory, issue 7396)."""


@pytest.mark.parametrize("seconds", [0.5, 30, 600, 7200])
def test_each_time_out_is_shorter_than_the_next_and_moves_with_the_deadline(seconds: float):
    time_outs = TimeOuts(command_seconds=seconds)
    assert 0 < time_outs.group_seconds < time_outs.heartbeat_seconds < time_outs.command_seconds
    assert TimeOuts(command_seconds=2 * seconds).group_seconds == 2 * time_outs.group_seconds


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_deadline_that_is_none_is_refused(seconds: float):
    with pytest.raises(BadInput):
        TimeOuts(command_seconds=seconds)


@pytest.mark.parametrize(("set_before", "expected"), [(None, 450), ("60", 60), ("3600", 450)])
def test_the_watchdogs_heartbeat_ends_before_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_before: str | None, expected: int
):
    monkeypatch.delenv(HEARTBEAT, raising=False)
    if set_before is not None:
        monkeypatch.setenv(HEARTBEAT, set_before)
    assert TIME_OUTS.command_seconds == CLIP_SECONDS == 600
    assert int(nccl_environment(tmp_path, 0)[HEARTBEAT]) == expected
    longer = nccl_environment(tmp_path, 0, TimeOuts(command_seconds=1200))
    assert int(longer[HEARTBEAT]) == (60 if set_before == "60" else 900)


@dataclasses.dataclass
class LinkOfTwo:
    rank: int = 0
    world_size: int = 2
    rendezvous: str = "file:///nowhere"


def test_groups_have_the_jobs_time_out(monkeypatch: pytest.MonkeyPatch):
    made: list[dict] = []
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **kwargs: made.append(kwargs))
    given = ClipJob(recipe=Recipe(name="any"), folder="", video="", group_seconds=12.5)
    assert join_group(LinkOfTwo(), given) == timedelta(seconds=12.5)  # type: ignore[arg-type]
    assert made[0]["timeout"] == timedelta(seconds=12.5)


@pytest.mark.parametrize("mishap", ["sleep", "freeze"])
def test_a_rank_that_never_comes_is_a_hang_though_another_gives_up_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mishap: str
):
    """Over real gloo, with a group whose time-out ends long before the command's."""
    monkeypatch.setattr("suites.harness.processes.rank_group.CAUSE_SECONDS", 0.1)
    monkeypatch.setattr("suites.harness.processes.rank_group.STACKS_SECONDS", 1.0)
    target, given = "launch_targets:barrier_with_a_time_out", Given(absent=1, mishap=mishap)
    group = RankGroup.start(
        Job(target=target, given=given, world_size=2, command_seconds=PATIENCE, preload=("torch",)), tmp_path
    )
    with group:
        group.command("load", answer=Done)
        with pytest.raises(GroupError) as caught:
            group.command("clip", answer=Done)
    [failure] = caught.value.failures
    assert (failure.kind, failure.rank, failure.phase) == ("hang", 1, "denoise")
    assert "rank 0 waited until the group's time-out" in failure.message
    assert "rank1.log" in caught.value.next_step


def test_a_rank_that_the_watchdog_ended_waited_in_vain(tmp_path: Path):
    log = tmp_path / "rank0.log"
    log.write_text(WATCHDOG + "\nframe #1: somewhere in libtorch_cuda.so" * 200)
    process = type("Ended", (), {"ended": True})()
    rank = type("Rank", (), {"error": None, "process": process, "log": log})()
    assert failures.waited_in_vain(rank)
    assert failures.lost_a_peer(rank)
    log.write_text("Segmentation fault")
    assert not failures.waited_in_vain(rank)


def test_over_several_machines_the_silent_rank_is_the_one_that_hung(tmp_path: Path):
    plan = plan_of(read_tiers()["gpu5x24"], read_tiers()["gpu5x24"].case("published_sharded"), "miniature", tmp_path)
    gave_up = ErrorReport(type_name="RuntimeError", message="Timed out waiting 300000ms for recv operation to complete")
    for rank in range(5):
        told = RankFile(last_report=RankReport(phase="denoise"), error=None if rank == 3 else gave_up)
        told.write(tmp_path / f"rank{rank}.json")
    record = gather(plan, nodes=2)
    assert (record.outcome, record.failure.rank, record.failure.phase) == ("hang", 3, "denoise")
    assert record.expected_phases.keys() >= passed().expected_phases.keys()
