"""Which tiers a machine's cards allow, and readings that fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from nvml_stand_in import GIB, StandInNvml
from waiting import wait_until

from liveavatar_core.config import Recipe
from liveavatar_core.hardware.cards import find_card
from liveavatar_core.hardware.nvml import read_driver
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import read_tiers
from suites.harness.hardware.on_cards import ALLOCATOR, NCCL_SUBSYSTEMS, allocator_settings, rank_environment
from suites.harness.hardware.partitioned import PartitionedMode as Partitioned
from suites.harness.hardware.physical import PhysicalMode as Physical
from suites.harness.hardware.physical import matching, on_cards_of
from suites.harness.messages import ClipJob
from suites.harness.probes.device import DeviceSampler, HostMemory
from suites.harness.verdicts.verdict import Verdict, judge_outcome

TIERS = read_tiers()
FOUR = TIERS["gpu4x24"]
RTX_4090, H200 = "NVIDIA GeForce RTX 4090", "NVIDIA H200"


def physical(*names: str, environment: dict[str, str] | None = None, **settings) -> str | None:
    return Physical(StandInNvml(*names, **settings), environment or {}).why_not(FOUR)


def test_the_tiers_own_cards_are_enough():
    assert physical(*[RTX_4090] * 4) is None
    assert physical(H200, *[RTX_4090] * 4) is None


def test_missing_cards_are_counted_by_name():
    assert physical(*[RTX_4090] * 3, H200) == (
        "4 x 24 GB cards of one model are needed; visible: 3 x NVIDIA GeForce RTX 4090, 1 x NVIDIA H200"
    )


OF_A_SIZE = {
    "gpu4x24": ("RTX 3090", "RTX 4090", "RTX A5000", "L4"),
    "gpu5x24": ("RTX 3090", "L4"),
    "gpu1x80": ("A100 80GB PCIe", "A100 80GB SXM", "H100 80GB PCIe", "H100 80GB SXM"),
    "gpu5x80": ("A100 80GB PCIe", "H100 80GB SXM"),
    "gpu1x48": ("L40S", "RTX 6000 Ada"),
}
CARDS = [(tier, card) for tier, names in OF_A_SIZE.items() for card in names]


@pytest.mark.parametrize(("size", "card"), CARDS)
def test_any_model_of_the_size_will_do_and_has_its_own_limit_and_link(size, card):
    known, tier = find_card(card), TIERS[size]
    library = StandInNvml(*[known.driver_name] * tier.cards, total_gib=known.visible_gib)
    assert Physical(library, {}).why_not(tier) is None
    own = on_cards_of(tier, matching(read_driver(library, {}), tier))
    case = own.cases[0]
    limit = RunPlan.full_size(own, case, "physical", Path()).limit_bytes
    assert limit == known.usable_bytes_in(own.layout(case).deployment)
    assert own.card_model.link == known.link


@pytest.mark.parametrize("card", ["A100 40GB SXM", "H100 NVL", "H20", "RTX 5090", "H200"])
def test_another_size_will_not(card):
    library = StandInNvml(*[find_card(card).driver_name] * 5, total_gib=find_card(card).visible_gib)
    assert all(Physical(library, {}).why_not(TIERS[tier]) for tier in OF_A_SIZE)


def test_models_are_not_mixed_and_the_tiers_own_comes_first():
    a5000 = "NVIDIA RTX A5000"
    assert "ranks of different models would wait" in (physical(*[RTX_4090] * 2, *[a5000] * 3) or "")
    chosen = matching(read_driver(StandInNvml(*[a5000] * 5, *[RTX_4090] * 4), {}), FOUR)
    assert [card.name for card in chosen] == [RTX_4090] * 4
    chosen = matching(read_driver(StandInNvml(*[RTX_4090] * 3, *[a5000] * 4), {}), FOUR)
    assert [card.name for card in chosen] == [a5000] * 4


def test_a_card_that_nobody_described_is_named_as_such():
    assert "NVIDIA GeForce RTX 4090 D: not described in cards.toml" in (physical(*[f"{RTX_4090} D"] * 4) or "")


def test_a_lost_card_and_one_in_parts_do_not_count():
    lost = StandInNvml(*[RTX_4090] * 4)
    lost.lose(2)
    assert "1 x NVIDIA GeForce RTX 4090 (GPU is lost)" in (Physical(lost, {}).why_not(FOUR) or "")
    cut = StandInNvml(*[RTX_4090] * 4)
    cut.cut(0, parts=2)
    assert "2 x NVIDIA GeForce RTX 4090 MIG" in (Physical(cut, {}).why_not(FOUR) or "")


@pytest.mark.parametrize(
    ("mode", "names", "total_gib", "lacks"),
    [
        (Physical, ["NVIDIA GeForce RTX 3090"] * 4, 24, True),
        (Physical, ["NVIDIA RTX A5000"] * 4, 24, True),
        (Physical, ["NVIDIA L4"] * 4, 24, False),
        (Physical, [RTX_4090] * 4, 24, False),
        (Partitioned, ["NVIDIA A100-SXM4-80GB"], 120, True),
        (Partitioned, [H200], 139.8, False),
    ],
)
def test_float8_is_refused_to_cards_without_it_and_bfloat16_is_not(mode, names, total_gib, lacks):
    stands = mode(StandInNvml(*names, total_gib=total_gib), {})
    refusal = stands.unsupported(FOUR, FOUR.case("fp8_ulysses"))
    assert bool(refusal) is lacks
    if refusal:
        assert f"{names[0]} does not multiply float8" in refusal
        assert "\nnext: give fp8_multiply False" in refusal
    assert stands.unsupported(FOUR, FOUR.case("published_sharded")) is None


def test_without_a_driver_it_says_so():
    assert physical(driver=False) == "no NVIDIA driver answers (Driver Not Loaded)"
    assert "Driver Not Loaded" in (Partitioned(StandInNvml(driver=False), {}).why_not(FOUR) or "")


@pytest.mark.parametrize("visible", ["0,1", "GPU-0000,GPU-0003", "0,9,1,2,3", "MIG-1", ""])
def test_cards_that_cuda_would_not_see_do_not_count(visible):
    assert physical(*[RTX_4090] * 4, environment={"CUDA_VISIBLE_DEVICES": visible}) is not None


@pytest.mark.parametrize("visible", ["3,2,1,0", "GPU-0000,1,GPU-0002,3"])
def test_cards_may_be_named_by_index_and_by_uuid(visible):
    assert physical(*[RTX_4090] * 4, environment={"CUDA_VISIBLE_DEVICES": visible}) is None


def test_a_large_card_has_room_for_a_tier_or_says_what_is_missing():
    large = Partitioned(StandInNvml(H200, total_gib=139.8), {})
    assert large.why_not(FOUR) is None
    assert large.why_not(TIERS["gpu5x24"]) is None
    small = Partitioned(StandInNvml("NVIDIA A100-SXM4-80GB", total_gib=79.25), {})
    assert small.why_not(FOUR) == (
        "4 x (22.15 + 1.00 for a context) = 92.60 GiB of one card are needed;"
        " visible: 1 x NVIDIA A100-SXM4-80GB, the largest of 79.25 GiB"
    )


@pytest.mark.parametrize("mode", [Physical, Partitioned])
def test_a_busy_card_is_the_machines_fault_and_names_the_process(mode, tmp_path):
    library = StandInNvml(*[RTX_4090] * 4, total_gib=120)
    library.cards[0].processes = [SimpleNamespace(pid=4711, usedGpuMemory=3 * GIB)]
    case = FOUR.case("published_sharded")
    record = mode(library, {}).run(FOUR, case, tmp_path)
    assert record.outcome == "infrastructure"
    assert "process 4711 (python3) holds 3.00 GiB" in record.failure.message
    assert judge_outcome(record, case.expect).verdict is Verdict.INFRASTRUCTURE


def test_the_sampler_keeps_the_peak_of_each_phase():
    library = StandInNvml(H200)
    with DeviceSampler(library, "GPU-0000", seconds=0.001) as sampler:
        for phase, used in (("encode", 3), ("decode", 2)):
            sampler.start_phase(phase)
            library.cards[0].used = used * GIB
            before = library.reads
            wait_until(lambda before=before: library.reads > before)  # by its thread
    assert sampler.peaks == {"load": GIB, "encode": 3 * GIB, "decode": 3 * GIB}
    assert sampler.problem is None


def test_nvml_that_fails_midway_leaves_what_was_read_before():
    library = StandInNvml(H200, fail_after=4)
    with DeviceSampler(library, "GPU-0000", seconds=60) as sampler:
        sampler.start_phase("encode")
        sampler.start_phase("denoise")
    assert sampler.problem == "NVML failed in phase denoise: GPU is lost"
    assert set(sampler.peaks) == {"load", "encode"}


def test_without_nvml_there_is_a_reason():
    with DeviceSampler(StandInNvml(driver=False), "GPU-0000") as sampler:
        sampler.start_phase("encode")
    assert (sampler.problem, sampler.peaks) == ("NVML: Driver Not Loaded", {})


def test_host_memory_is_read_for_each_phase():
    host = HostMemory()
    host.start_phase("encode")
    block = bytearray(64 * 1024**2)
    host.read()
    before = host.peaks["encode"]
    del block
    host.start_phase("decode")
    host.read()
    assert before > 64 * 1024**2
    assert host.peaks["decode"] <= before


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, "default"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "a:1", "PYTORCH_CUDA_ALLOC_CONF": "b:2"}, "a:1; b:2"),
    ],
)
def test_the_allocators_settings_are_read_under_both_names(monkeypatch, given, settings):
    for name in ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert allocator_settings() == settings


@pytest.mark.parametrize("backend", ["nccl", "gloo"])
def test_nccl_writes_down_what_it_does_beside_the_log(tmp_path, monkeypatch, backend):
    for name in ("NCCL_DEBUG", "NCCL_DEBUG_SUBSYS"):
        monkeypatch.delenv(name, raising=False)
    given = ClipJob(
        recipe=Recipe(name="any"), folder=str(tmp_path), video="", backend=backend, card_uuids=("GPU-0", "GPU-1")
    )
    told = rank_environment(given, 1)
    assert (told["CUDA_VISIBLE_DEVICES"], told["LOCAL_RANK"]) == ("GPU-1", "0")
    file = str(tmp_path / "rank1.nccl.log")
    nccl = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": NCCL_SUBSYSTEMS, "NCCL_DEBUG_FILE": file}
    assert {name: value for name, value in told.items() if name.startswith("NCCL")} == (
        nccl if backend == "nccl" else {}
    )
