"""Merged weights equal the reference's; keys follow its rules, but none is silently ignored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from liveavatar_core.errors import CheckpointError
from liveavatar_core.weights.lora import AdapterSource, Lora, MergedSource, lora_of, read_lora
from liveavatar_core.weights.source import TensorSource

BFLOAT16_BASE = "bf16base."


class LoraCase:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "lora.safetensors"
        self.meta = json.loads((folder / "meta.json").read_text())
        self.merged = load_file(folder / "merged_some.safetensors")
        self.lora = read_lora(self.path)
        self.keys = load_file(self.path)

    def base(self, dit_case: Path, dtype: torch.dtype) -> TensorSource:
        weights = load_file(dit_case / "state_dict.safetensors")
        return TensorSource({name: weight.to(dtype) for name, weight in weights.items()})


@pytest.fixture
def case(lora_case: Path) -> LoraCase:
    return LoraCase(lora_case)


def test_rank_scale_and_layers(case: LoraCase):
    assert case.lora.rank == case.meta["rank"]
    assert case.lora.scale == case.meta["scale"] == case.meta["real"]["scale"]
    assert case.lora.layers == set(case.meta["targets"])


def test_float32_merge_equals_the_reference(case: LoraCase, dit_case: Path):
    merged = MergedSource(case.base(dit_case, torch.float32), case.lora)
    expected = {name: x for name, x in case.merged.items() if not name.startswith(BFLOAT16_BASE)}
    assert expected
    for name, weight in expected.items():
        torch.testing.assert_close(merged.read(name), weight, atol=1e-6, rtol=0)


def test_bfloat16_merge_rounds_once(case: LoraCase, dit_case: Path):
    merged = MergedSource(case.base(dit_case, torch.bfloat16), case.lora)
    expected = {name: x for name, x in case.merged.items() if name.startswith(BFLOAT16_BASE)}
    assert expected
    for name, weight in expected.items():
        assert torch.equal(merged.read(name.removeprefix(BFLOAT16_BASE)), weight)


def test_only_the_targets_change(case: LoraCase, dit_case: Path):
    base = case.base(dit_case, torch.float32)
    merged = MergedSource(base, case.lora)
    changed = {name for name in base.names() if not torch.equal(merged.read(name), base.read(name))}
    assert changed == {f"{layer}.weight" for layer in case.meta["targets"]}


def test_rows_of_a_merged_weight(case: LoraCase, dit_case: Path):
    merged = MergedSource(case.base(dit_case, torch.float32), case.lora)
    name = next(iter(case.merged))
    torch.testing.assert_close(merged.read(name, slice(5, 9)), merged.read(name)[5:9])


def test_adapter_form_gives_base_and_factors(case: LoraCase, dit_case: Path):
    base = case.base(dit_case, torch.bfloat16)
    adapter = AdapterSource(base, case.lora, rank=case.meta["rank"])
    layer = case.meta["targets"][0]
    assert len(adapter.names()) == len(base.names()) + 2 * len(case.meta["targets"])
    assert torch.equal(adapter.read(f"{layer}.base_layer.weight"), base.read(f"{layer}.weight"))
    for factor in "AB":
        name = f"{layer}.lora_{factor}.default.weight"
        assert torch.equal(adapter.read(name), case.keys[name])
    assert f"{layer}.weight" not in adapter.names()


RENAMED = {
    "no_prefix.default": lambda name: name,
    "base_model.model prefix.default": lambda name: f"base_model.model.{name}",
    "no_prefix, no .default (peft save_pretrained style)": lambda name: name.replace(".default", ""),
    "diffusion_model. prefix": lambda name: f"diffusion_model.{name}",
}


@pytest.mark.parametrize("variant", RENAMED)
def test_what_the_original_ignores_is_an_error_here(case: LoraCase, dit_case: Path, tmp_path: Path, variant: str):
    base = case.base(dit_case, torch.float32)
    changed = case.meta["loader_variants"][variant]["changed_tensors"]
    path = tmp_path / "lora.safetensors"
    save_file({RENAMED[variant](name): x for name, x in case.keys.items()}, path)
    if changed:
        assert len(MergedSource(base, read_lora(path)).lora.layers) == changed
        return
    with pytest.raises(CheckpointError, match=str(path)):
        MergedSource(base, read_lora(path))


def changed(case: LoraCase, **changes: Tensor | None) -> Lora:
    """The case's LoRA with keys replaced or, where None, left out."""
    keys = {**case.keys, **{name: x for name, x in changes.items() if x is not None}}
    return lora_of(TensorSource({name: x for name, x in keys.items() if changes.get(name, x) is not None}), "it")


def test_half_a_pair_is_an_error(case: LoraCase):
    name = next(name for name in case.keys if "lora_B" in name)
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        changed(case, **{name: None})


def test_an_unknown_layer_is_an_error(case: LoraCase, dit_case: Path):
    factors = {f"blocks.99.ffn.0.lora_{x}.default.weight": torch.zeros(4, 4) for x in "AB"}
    with pytest.raises(CheckpointError, match=r"blocks\.99\.ffn\.0"):
        MergedSource(case.base(dit_case, torch.float32), changed(case, **factors))


def test_a_layer_that_is_never_adapted_is_an_error(case: LoraCase):
    factors = {f"text_embedding.0.lora_{x}.default.weight": torch.zeros(4, 4) for x in "AB"}
    with pytest.raises(CheckpointError, match=r"text_embedding\.0"):
        changed(case, **factors)


def test_another_width_is_an_error(case: LoraCase, dit_case: Path):
    layer = case.meta["targets"][0]
    wide = {f"{layer}.lora_A.default.weight": torch.zeros(case.meta["rank"], 7)}
    with pytest.raises(CheckpointError, match=layer):
        MergedSource(case.base(dit_case, torch.float32), changed(case, **wide))


def test_another_rank_than_asked_for_is_an_error(case: LoraCase, dit_case: Path):
    with pytest.raises(CheckpointError, match="has rank 4, not 128"):
        AdapterSource(case.base(dit_case, torch.float32), case.lora, rank=128)


def test_mixed_ranks_are_an_error(case: LoraCase):
    layer = case.meta["targets"][0]
    out = case.keys[f"{layer}.lora_B.default.weight"].shape[0]
    with pytest.raises(CheckpointError, match="ranks"):
        changed(case, **{f"{layer}.lora_B.default.weight": torch.zeros(out, 9)})


def test_an_empty_file_is_an_error(tmp_path: Path):
    save_file({}, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="0 of 0 keys"):
        read_lora(tmp_path / "lora.safetensors")
