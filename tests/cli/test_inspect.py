"""`inspect`: what it says of whole and of broken checkpoints, and which cards a model fits on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from checkpoints import MODEL, SHARD_BYTES, a_shard, change_torch_file, seeded
from safetensors.torch import save_file

from liveavatar_core.cli.main import main
from liveavatar_core.cli.plan.card_sets import CARD_SETS, fits
from liveavatar_core.weights import layout
from liveavatar_core.weights.checkpoint import expected_shapes, write_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "Wan2.2-S2V-14B"
    write_checkpoint(folder, MODEL, seeded(), SHARD_BYTES)
    return folder


def write_lora(path: Path, *, rank: int, value: float = 0.1) -> Path:
    layer, dim = "blocks.0.self_attn.q", MODEL.transformer.dim
    factors = {
        f"{layer}.lora_A.default.weight": torch.full((rank, dim), value),
        f"{layer}.lora_B.default.weight": torch.full((dim, rank), value),
    }
    save_file(factors, path)
    return path


def inspect(checkpoint: Path, *more: str, fit: bool = False) -> int:
    return main(["inspect", "--ckpt_dir", str(checkpoint), "--fit", str(fit), *more])


def test_a_whole_checkpoint(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lora = write_lora(tmp_path / "lora.safetensors", rank=4)
    assert inspect(checkpoint, "--lora_path_dmd", str(lora), "--lora_rank", "4") == 0
    said = capsys.readouterr().out
    words = [line.split() for line in said.splitlines()]
    parameters = sum(torch.Size(shape).numel() for shape in expected_shapes("transformer", MODEL).values())
    assert ["transformer", f"{parameters:,}", "114", "bfloat16", "complete"] in words
    assert ["tokenizer", "-", "-", "there"] in words
    assert [str(lora), "4", "1"] in words
    digest = hashlib.sha256((checkpoint / layout.VAE).read_bytes()).hexdigest()
    assert [layout.VAE, f"{(checkpoint / layout.VAE).stat().st_size:,}", digest] in words
    assert "problem" not in said


def remove_the_text_encoder(checkpoint: Path) -> str:
    (checkpoint / layout.TEXT_ENCODER).unlink()
    return layout.TEXT_ENCODER


def cut_a_shard(checkpoint: Path) -> str:
    shard = a_shard(checkpoint)
    shard.write_bytes(shard.read_bytes()[:-100])
    return shard.name


def poison_the_vae(checkpoint: Path) -> str:
    change_torch_file(checkpoint / layout.VAE, **{"conv1.bias": torch.full((32,), float("nan"))})
    return "conv1.bias holds values that are not finite"


def remove_the_tokenizer(checkpoint: Path) -> str:
    for file in (checkpoint / layout.TOKENIZER).iterdir():
        file.unlink()
    return "no tokenizer"


@pytest.mark.parametrize("spoil", [remove_the_text_encoder, cut_a_shard, poison_the_vae, remove_the_tokenizer])
def test_what_is_wrong_is_said_and_exits_2(checkpoint: Path, spoil, capsys: pytest.CaptureFixture[str]):
    named = spoil(checkpoint)
    assert inspect(checkpoint, "--hashes", "False") == 2
    out, err = capsys.readouterr()
    assert any(named in line for line in out.splitlines() if line.startswith("problem: "))
    first, second = err.splitlines()
    assert named in first
    assert second.startswith("next: ")


@pytest.mark.parametrize(
    ("rank", "value", "said"),
    [(8, 0.1, "has rank 8, not 4"), (4, float("inf"), "blocks.0.self_attn.q.lora_A.default.weight")],
)
def test_a_lora_that_cannot_be_used(
    checkpoint: Path, tmp_path: Path, rank: int, value: float, said: str, capsys: pytest.CaptureFixture[str]
):
    lora = write_lora(tmp_path / "lora.safetensors", rank=rank, value=value)
    options = ("--hashes", "False", "--lora_path_dmd", str(lora), "--lora_rank", "4")
    assert inspect(checkpoint, *options) == 2
    err = capsys.readouterr().err
    assert str(lora) in err
    assert said in err


def test_a_folder_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert inspect(tmp_path / "nowhere") == 2
    assert "nowhere is no folder" in capsys.readouterr().err


def test_fit_of_a_small_model():
    found = {(fit.cards, fit.recipe): fit for fit in fits(MODEL)}
    assert {cards for cards, _ in found} == set(CARD_SETS)
    alone = found["1x80", "single"]
    assert alone.verdict == "yes"
    assert alone.peak is not None
    assert 0 < alone.peak < alone.usable
    assert "more than the 2 attention heads" in found["4x24", "published_sharded"].verdict
