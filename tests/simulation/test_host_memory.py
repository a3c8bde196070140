"""Host memory is a limit of the machine: all its ranks together, in tiers and in `fit`; pinned memory takes no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from liveavatar_core.cli.plan.layouts import FeasibleLayout, InfeasibleLayout, candidates, judge, parse_cards
from liveavatar_core.config import ClipSpec
from liveavatar_core.errors import GIB, CannotPin
from liveavatar_core.pinned_memory import LEAST_EXACT, pinned
from liveavatar_core.recipes import miniature, named_recipe
from suites.harness.cases.tiers import read_tiers
from suites.harness.hardware import simulated
from suites.harness.hardware.simulated import SimulatedMode
from suites.harness.messages import RankReport, SimulationReport
from suites.harness.records.measurements import PhaseMemory
from suites.harness.records.record import host_bytes


def reading(rank: int, phase: str, host: int | None) -> PhaseMemory:
    missing = {"device_used_bytes": "no card", "reserved_bytes": "no allocator"}
    return PhaseMemory(
        rank=rank,
        phase=phase,
        allocated_bytes=1,
        reserved_bytes=None,
        device_used_bytes=None,
        by_category={},
        host_bytes=host,
        missing=missing,
    )


def test_ranks_add_up_each_at_its_fullest():
    memory = [reading(0, "load", 5), reading(0, "denoise", 7), reading(1, "load", 11), reading(1, "denoise", 2)]
    assert host_bytes(memory) == 7 + 11
    assert host_bytes([*memory, reading(2, "load", None)]) is None


def test_fit_adds_the_ranks_of_the_machine_up():
    cards = parse_cards("4x24")
    recipe = next(each for each in candidates(cards, ClipSpec()) if each.deployment.offload_kv_cache)
    small = miniature(recipe)
    found = judge(small, cards.card)
    assert isinstance(found, FeasibleLayout)
    short = judge(small, cards.card, host_gib=1e-6)
    assert isinstance(short, InfeasibleLayout)
    assert short.why.startswith("host-oom: 4 ranks hold")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[SimulationReport]:
    """What the two roles of a tier of four cards answer: ranks 0 to 2 hold 10 GiB of host memory, rank 3 holds 4."""
    from liveavatar_core.simulation.cost.roofline import TimeEstimate

    answers = [
        SimulationReport(
            report=RankReport(memory=(reading(rank, "load", size * GIB),)),
            shortage=None,
            expandable=None,
            clips=1,
            time=TimeEstimate(compute_seconds=1.0),
            first_clip_time=TimeEstimate(compute_seconds=1.0),
            seconds_by_part={"denoise": 1.0},
            units_executed=1,
            units_repeated=1,
        )
        for rank, size in ((0, 10), (3, 4))
    ]

    class Group:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def command(self, *_, **__):
            return answers

    monkeypatch.setattr(simulated, "RankGroup", SimpleNamespace(start=lambda *_: Group()))
    return answers


@pytest.mark.parametrize(("host_gib", "outcome"), [(34.0, "pass"), (33.9, "host-oom"), (None, "pass")])
def test_a_tier_ends_in_host_oom_where_its_machine_has_less(told, host_gib, outcome, tmp_path: Path):
    tier = replace(read_tiers()["gpu4x24"], host_gib=host_gib)
    record = SimulatedMode().run(tier, tier.case("encoders_freed"), tmp_path)
    assert record.host_bytes == 34 * GIB
    assert record.outcome == outcome
    if outcome == "host-oom":
        assert record.failure.message == "4 ranks hold 34.0 GiB of 33.9 in host memory"
        assert record.host_limit_bytes == int(33.9 * GIB)


def test_every_tier_has_a_machine_and_the_command_line_another():
    assert read_tiers()["gpu1x24"].host_gib == 128
    assert {tier.host_gib for tier in read_tiers(host_gib=64.0).values()} == {64.0}
    assert named_recipe("block_offload", 1).deployment.offload_blocks


class Registry:
    """CUDA's runtime, as far as pinning goes."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.pinned = status, {}

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:  # noqa: N802 - CUDA's name
        if not self.status:
            self.pinned[address] = nbytes
        return self.status

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802 - CUDA's name
        del self.pinned[address]
        return 0


def test_memory_is_pinned_where_it_stands_exactly_and_let_go_with_it(monkeypatch: pytest.MonkeyPatch):
    cuda = Registry()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda)
    whole = torch.zeros(3 * LEAST_EXACT, dtype=torch.uint8)
    assert pinned(whole) is whole
    assert cuda.pinned == {whole.data_ptr(): 3 * LEAST_EXACT}, "torch would take four"
    view = whole[1:]
    del whole
    assert cuda.pinned, "a view keeps it"
    del view
    assert not cuda.pinned


def test_what_the_system_refuses_to_pin_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "cudart", lambda: Registry(status=2))
    with pytest.raises(CannotPin, match="CUDA error 2"):
        pinned(torch.zeros(LEAST_EXACT, dtype=torch.uint8))
