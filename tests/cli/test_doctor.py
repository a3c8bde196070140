"""The fault tree: every fault is found and comes with a next step; a healthy machine has none."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import MODEL, SHARD_BYTES, seeded
from PIL import Image, ImageFilter
from rich.console import Console
from safetensors.torch import save_file
from waiting import PATIENCE

from liveavatar_core.cli.doctor.checkpoint import weights_branch
from liveavatar_core.cli.doctor.checks import CheckGroup, bad, good, skipped
from liveavatar_core.cli.doctor.command import show
from liveavatar_core.cli.doctor.driver import TorchBuild, card_branches, driver_branch
from liveavatar_core.cli.doctor.examine import Subject, as_data, examine, worst
from liveavatar_core.cli.doctor.host import available_memory, judge_disk, judge_memory, offload_bytes
from liveavatar_core.cli.doctor.inputs import portrait_findings, voice_findings
from liveavatar_core.cli.doctor.links import judge_rate, link_branch, measure_all_gather, reason_of
from liveavatar_core.cli.main import main
from liveavatar_core.errors import GIB
from liveavatar_core.hardware.nvml import CardProcess, CardState, DriverState
from liveavatar_core.media import read_audio, read_image
from liveavatar_core.weights.checkpoint import write_checkpoint

ASSETS = Path(__file__).parents[2] / "assets"
CUDA_TORCH = TorchBuild(version="2.13.0+cu130", cuda="13.0", available=True)
CPU_TORCH = TorchBuild(version="2.13.0+cpu", cuda=None, available=False)
CARD = CardState(
    index=0,
    uuid="GPU-0000",
    name="NVIDIA GeForce RTX 4090",
    total_bytes=24 * GIB,
    free_bytes=int(23.6 * GIB),
    processes=(),
    uncorrected_ecc_errors=0,
    slowed_by=(),
    pcie_generation=1,
    pcie_generation_max=4,
    pcie_width=16,
    pcie_width_max=16,
)
DRIVER = DriverState(version="580.65.06", cuda="13.0", cards=(CARD,))
NO_DRIVER = DriverState(version=None, cuda=None, missing={"driver": "NVML Shared Library Not Found"})


def statuses(group: CheckGroup) -> dict[str, str]:
    return {result.name: result.status for result in group.results}


def test_a_healthy_card_has_no_fault():
    assert driver_branch(DRIVER, CUDA_TORCH).status == "good"
    (group,) = card_branches(DRIVER)
    assert set(statuses(group).values()) == {"good"}


@pytest.mark.parametrize(
    ("changes", "name", "status", "found", "step"),
    [
        ({"free_bytes": 20 * GIB}, "memory", "bad", "20.00 GiB free of 24.00", "end the processes"),
        (
            {"processes": (CardProcess(pid=4711, name="train.py", used_bytes=None),)},
            "other processes",
            "bad",
            "4711 train.py",
            "CUDA_VISIBLE_DEVICES",
        ),
        ({"uncorrected_ecc_errors": 2}, "ECC errors", "bad", "2 uncorrected", "--gpu-reset -i 0"),
        ({"slowed_by": ("power cap",)}, "clocks", "bad", "power cap", "cooling"),
        ({"pcie_width": 4}, "PCIe", "bad", "4 of 16 lanes", "slot"),
        ({"name": "NVIDIA Odd"}, "data sheet", "limited", "NVIDIA Odd", "cards.toml"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_a_fault_of_a_card_is_found_with_a_next_step(changes, name, status, found, step):
    (group,) = card_branches(replace(DRIVER, cards=(replace(CARD, **changes),)))
    faults = [result for result in group.results if result.status != "good"]
    assert [(fault.name, fault.status) for fault in faults] == [(name, status)]
    assert found in faults[0].found
    assert step in faults[0].next_step


def test_this_process_is_no_fault_of_a_card():
    own = CardProcess(pid=os.getpid(), name="python", used_bytes=GIB)
    (group,) = card_branches(replace(DRIVER, cards=(replace(CARD, processes=(own,)),)))
    assert group.status == "good"


def test_what_cannot_be_read_is_skipped_with_the_reason():
    dumb = replace(
        CARD, free_bytes=None, uncorrected_ecc_errors=None, missing={"memory": "lost", "ECC errors": "GeForce"}
    )
    (group,) = card_branches(replace(DRIVER, cards=(dumb,)))
    assert {result.found for result in group.results if result.status == "skipped"} == {"lost", "GeForce"}
    assert group.status == "good"


@pytest.mark.parametrize(
    ("driver", "build", "status", "step"),
    [
        (NO_DRIVER, CPU_TORCH, "skipped", ""),
        (DRIVER, CPU_TORCH, "bad", "TORCH_INDEX"),
        (replace(DRIVER, cuda="12.4"), CUDA_TORCH, "bad", "update the driver"),
        (DRIVER, replace(CUDA_TORCH, available=False), "bad", "nvidia-smi"),
        (replace(DRIVER, cards=()), CUDA_TORCH, "bad", "unset CUDA_VISIBLE_DEVICES"),
    ],
    ids=["no driver", "torch for the CPU", "old driver", "torch sees none", "none visible"],
)
def test_driver_and_torch_must_understand_each_other(driver, build, status, step):
    group = driver_branch(driver, build)
    assert group.status == status
    assert any(step in result.next_step for result in group.results)


def test_a_newer_driver_serves_an_older_torch():
    assert driver_branch(DRIVER, replace(CUDA_TORCH, cuda="12.8")).status == "good"


def test_between_cards_takes_two():
    assert link_branch(DRIVER).status == "skipped"


def test_cards_that_cannot_read_each_other_are_named(monkeypatch):
    monkeypatch.setattr("liveavatar_core.cli.doctor.links.measure_all_gather", lambda *_: {"gb_s": 20.0})
    group = link_branch(replace(DRIVER, cards=(CARD, CARD), without_peer_access=((0, 1),)))
    assert statuses(group) == {"peer access": "limited", "NCCL all-gather": "good"}


@pytest.mark.parametrize(("gb_s", "status"), [(20.0, "good"), (3.0, "bad")])
def test_a_rate_is_held_against_the_data_sheet(gb_s, status):
    result = judge_rate(gb_s, CARD.name)
    assert result.status == status
    assert f"{gb_s:.1f} GB/s of 32 over pcie4" in result.found


def test_an_all_gather_is_really_measured():
    assert measure_all_gather(2, "gloo", PATIENCE)["gb_s"] > 0


def test_an_all_gather_that_does_not_answer_is_ended():
    with pytest.raises(RuntimeError, match=r"no answer within 0 s"):
        measure_all_gather(2, "gloo", 0)


def test_an_all_gather_that_fails_says_why():
    output = "Traceback\n  File x\nValueError: no peers\n\n[W] destroy_process_group was not called\n"
    assert reason_of(output) == "ValueError: no peers"
    assert reason_of("killed\n") == "killed"
    assert reason_of("") == "no output"


def test_host_memory_and_disk():
    needs = offload_bytes(MODEL)
    assert 0 < needs["t5_cpu"] < needs["offload_model"]
    assert judge_memory(max(needs.values()), needs).status == "good"
    scarce = judge_memory(needs["t5_cpu"], needs)
    assert scarce.status == "limited"
    assert "offload_model, which end in host-oom here" in scarce.next_step
    assert "t5_cpu" not in scarce.next_step
    assert available_memory() > 0
    assert judge_disk(60 * 10**9, Path("/data")).status == "good"
    assert judge_disk(40 * 10**9, Path("/data")).status == "bad"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "Wan2.2-S2V-14B"
    write_checkpoint(folder, MODEL, seeded(), SHARD_BYTES)
    return folder


def lora(folder: Path, width: int) -> Path:
    layer = "blocks.0.self_attn.q"
    factors = {
        f"{layer}.lora_A.default.weight": torch.ones(4, width),
        f"{layer}.lora_B.default.weight": torch.ones(width, 4),
    }
    save_file(factors, folder / "lora.safetensors")
    return folder / "lora.safetensors"


def test_a_whole_checkpoint_and_its_lora(checkpoint, tmp_path):
    group = weights_branch(checkpoint, lora(tmp_path, MODEL.transformer.dim), values=True)
    assert statuses(group) == {"checkpoint": "good", "LoRA": "good"}


def test_a_checkpoint_that_is_not_whole_and_a_lora_of_another_model(checkpoint, tmp_path):
    (checkpoint / "Wan2.1_VAE.pth").unlink()
    group = weights_branch(checkpoint, lora(tmp_path, 64), values=False)
    assert statuses(group) == {"checkpoint": "bad", "LoRA": "bad"}
    assert "Wan2.1_VAE.pth is missing" in group.results[0].found
    assert "blocks.0.self_attn.q" in group.results[1].found


def test_the_portrait_and_the_voice_that_ship_are_good():
    results = [
        *portrait_findings(read_image(ASSETS / "portrait.png")),
        *voice_findings(read_audio(ASSETS / "voice.wav")),
    ]
    assert {result.status for result in results} == {"good"}


def portrait() -> Image.Image:
    return read_image(ASSETS / "portrait.png")


def moved(across: int) -> Image.Image:
    """The portrait in a corner of a blue picture."""
    wide = Image.new("RGB", (1600, 768), (40, 80, 200))
    wide.paste(portrait(), (across, 0))
    return wide


@pytest.mark.parametrize(
    ("picture", "faults"),
    [
        (lambda: portrait().filter(ImageFilter.GaussianBlur(12)), {"portrait sharpness"}),
        (lambda: portrait().resize((128, 192)), {"portrait size", "portrait sharpness"}),
        (lambda: moved(1088), {"face position"}),
        (lambda: Image.effect_noise((512, 512), 90).convert("RGB"), {"face position"}),
    ],
    ids=["out of focus", "small", "at the edge", "no face"],
)
def test_a_portrait_that_will_not_do(picture, faults):
    assert {result.name for result in portrait_findings(picture()) if result.status != "good"} == faults


def voice() -> np.ndarray:
    return read_audio(ASSETS / "voice.wav")


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (lambda samples: samples * 0.01, {"voice level"}),
        (lambda samples: np.clip(samples * 8, -1, 1), {"voice clipping"}),
        (
            lambda samples: samples + np.random.default_rng(0).normal(scale=0.1, size=len(samples)),
            {"voice signal to noise"},
        ),
    ],
    ids=["faint", "clipped", "noisy"],
)
def test_a_voice_that_will_not_do(change, faults):
    found = {result.name for result in voice_findings(change(voice()).astype(np.float32)) if result.status != "good"}
    assert faults <= found


TREE = (
    CheckGroup(name="driver", results=(good("CUDA", "13.0"),)),
    CheckGroup(name="card 0", results=(good("clocks", "not slowed"), bad("memory", "[red]1 GiB", "end it"))),
    CheckGroup(name="cards", results=(skipped("all-gather", "one card"),)),
)


def test_the_failing_branch_is_open_and_the_others_are_closed():
    out = io.StringIO()
    show(TREE, Console(file=out))
    assert out.getvalue().splitlines() == [
        "this machine",
        "  ok driver",
        "  BAD card 0",
        "    ok clocks: not slowed",
        "    BAD memory: [red]1 GiB",
        "      next: end it",
        "  skipped cards",
        "    skipped all-gather: one card",
        "2 ok, 1 skipped, 0 limited, 1 bad",
    ]


def test_a_terminal_gets_a_drawn_tree():
    out = io.StringIO()
    show(TREE, Console(file=out, force_terminal=True, width=80))
    assert "└──" in out.getvalue()
    assert "[red]1 GiB" in out.getvalue(), "what was found is no markup"


def test_without_a_card_all_else_is_examined():
    groups = examine(Subject(image=ASSETS / "portrait.png", audio=ASSETS / "missing.wav"), NO_DRIVER, CPU_TORCH)
    data = as_data(groups)
    assert [group["name"] for group in data["groups"]] == [
        "driver",
        "cards",
        "what is no tensor",
        "between cards",
        "host",
        "weights",
        "inputs",
    ]
    assert [group["status"] for group in data["groups"]][:4] == ["skipped"] * 4
    assert worst(groups) == "bad", "there is no such voice"


def test_the_command_prints_json_and_exits_by_what_it_found(capsys):
    arguments = ["doctor", "--json", "--image", str(ASSETS / "portrait.png")]
    main(arguments)
    assert json.loads(capsys.readouterr().out)["groups"][-1]["results"][0]["status"] == "good"
    assert main(["doctor", "--audio", "nowhere.wav"]) == 1
    out = capsys.readouterr().out
    assert "BAD voice: nowhere.wav: there is no such voice file" in out
    assert "next: give the path of the voice" in out
