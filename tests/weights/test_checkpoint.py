"""Checkpoints in the published layout: written, read back, inspected, and refused when something is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import MODEL, SHARD_BYTES, a_shard, change_torch_file, seeded
from safetensors.torch import load_file, save_file

from liveavatar_core.encoders.params import VaeParams
from liveavatar_core.encoders.text import ByteTokenizer
from liveavatar_core.errors import CheckpointError
from liveavatar_core.weights import layout
from liveavatar_core.weights.checkpoint import (
    expected_shapes,
    open_checkpoint,
    open_tokenizer,
    with_lora,
    write_checkpoint,
)
from liveavatar_core.weights.checkpoint_summary import inspect_checkpoint
from liveavatar_core.weights.layout import read_model_params
from liveavatar_core.weights.lora import lora_of
from liveavatar_core.weights.names import COMPONENTS, published_name
from liveavatar_core.weights.random import SeededSource
from liveavatar_core.weights.source import TensorSource


@pytest.fixture(scope="module")
def weights() -> dict:
    return seeded()


@pytest.fixture
def folder(tmp_path: Path, weights: dict) -> Path:
    write_checkpoint(tmp_path / "Wan2.2-S2V-14B", MODEL, weights, shard_bytes=SHARD_BYTES)
    return tmp_path / "Wan2.2-S2V-14B"


class TestRoundTrip:
    def test_every_value_comes_back_in_its_type(self, folder: Path, weights: dict):
        read = open_checkpoint(folder, MODEL)
        for component in COMPONENTS:
            assert set(read[component].names()) == set(weights[component].names())
            for name in weights[component].names():
                assert read[component].dtype(name) == torch.bfloat16
                assert read[component].shape(name) == weights[component].shape(name)
                assert torch.equal(read[component].read(name), weights[component].read(name))

    def test_dimensions_come_back(self, folder: Path):
        assert read_model_params(folder) == MODEL

    def test_the_layout_is_the_published_one(self, folder: Path):
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert {layout.CONFIG, layout.INDEX, layout.TEXT_ENCODER, layout.VAE} <= files
        assert "wav2vec2-large-xlsr-53-english/model.safetensors" in files
        assert "google/umt5-xxl/tokenizer_config.json" in files
        index = json.loads((folder / layout.INDEX).read_text())
        shards = set(index["weight_map"].values())
        assert len(shards) > 2
        assert shards == {name for name in files if name.startswith("diffusion_pytorch_model-")}
        assert index["metadata"]["total_size"] == sum(
            x.nbytes for shard in shards for x in load_file(folder / shard).values()
        )

    def test_names_in_the_files_are_the_published_ones(self, folder: Path):
        text = torch.load(folder / layout.TEXT_ENCODER, weights_only=True)
        assert "blocks.1.ffn.gate.0.weight" in text
        vae = torch.load(folder / layout.VAE, weights_only=True)
        assert "decoder.upsamples.3.resample.1.weight" in vae
        audio = load_file(folder / layout.AUDIO_ENCODER / "model.safetensors")
        assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in audio

    @pytest.mark.parametrize("rows", [slice(0, 3), slice(2, 7), slice(5, None), slice(9, 9)])
    def test_rows_are_those_of_the_whole(self, folder: Path, rows: slice):
        read = open_checkpoint(folder, MODEL)
        for component in COMPONENTS:
            name = max(read[component].names(), key=lambda name: read[component].shape(name)[0])
            assert torch.equal(read[component].read(name, rows), read[component].read(name)[rows])

    def test_the_written_tokenizer_is_the_byte_tokenizer(self, folder: Path):
        published, tokens = open_tokenizer(folder, 24), ByteTokenizer(260, 24)
        for prompt in ("a man speaks", "", "caf\u00e9 &amp; more than it will hold"):
            assert torch.equal(published(prompt).ids_BL, tokens(prompt).ids_BL)
            assert torch.equal(published(prompt).mask_BL, tokens(prompt).mask_BL)

    def test_an_older_audio_file_is_read_too(self, folder: Path, weights: dict):
        path = folder / layout.AUDIO_ENCODER / "model.safetensors"
        torch.save({**load_file(path), "lm_head.weight": torch.zeros(3, 3)}, path.with_name("pytorch_model.bin"))
        path.unlink()
        read = open_checkpoint(folder, MODEL)["audio_encoder"]
        assert all(torch.equal(read.read(name), weights["audio_encoder"].read(name)) for name in read.names())

    def test_an_existing_folder_is_left_alone(self, folder: Path, weights: dict):
        with pytest.raises(CheckpointError, match="exists already"):
            write_checkpoint(folder, MODEL, weights)

    def test_with_lora(self, folder: Path):
        layer = "blocks.1.ffn.2"
        factors = {"A": torch.ones(2, 48), "B": torch.ones(32, 2)}
        named = {f"{layer}.lora_{x}.default.weight": factor for x, factor in factors.items()}
        lora = lora_of(TensorSource(named), "it")
        base = open_checkpoint(folder, MODEL)
        merged = with_lora(base, lora, "merged")["transformer"].read(f"{layer}.weight")
        plain = base["transformer"].read(f"{layer}.weight")
        assert torch.equal(merged, (plain.float() + 1).bfloat16())
        beside = with_lora(base, lora, "adapter", rank=2)["transformer"]
        assert torch.equal(beside.read(f"{layer}.base_layer.weight"), plain)


class TestRefusal:
    """Each names the file and the key, before anything is read into the model."""

    def test_a_truncated_shard(self, folder: Path):
        shard = a_shard(folder)
        shard.write_bytes(shard.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match=f"{shard.name} is damaged or truncated"):
            open_checkpoint(folder, MODEL)

    @pytest.mark.parametrize("name", [layout.TEXT_ENCODER, layout.VAE])
    def test_a_truncated_torch_file(self, folder: Path, name: str):
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(CheckpointError, match=name):
            open_checkpoint(folder, MODEL)

    @pytest.mark.parametrize("name", [layout.INDEX, layout.TEXT_ENCODER, layout.VAE])
    def test_a_missing_file(self, folder: Path, name: str):
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=name):
            open_checkpoint(folder, MODEL)

    def test_a_missing_shard(self, folder: Path):
        shard = a_shard(folder)
        shard.unlink()
        with pytest.raises(CheckpointError, match=f"{shard.name} is missing"):
            open_checkpoint(folder, MODEL)

    def test_a_shard_without_a_key_of_the_index(self, folder: Path):
        shard = a_shard(folder)
        tensors = load_file(shard)
        name = next(iter(tensors))
        save_file({other: x for other, x in tensors.items() if other != name}, shard)
        with pytest.raises(CheckpointError, match=f"{shard.name} does not hold {name}"):
            open_checkpoint(folder, MODEL)

    def test_a_missing_key(self, folder: Path):
        change_torch_file(folder / layout.VAE, **{"conv1.weight": None})
        with pytest.raises(CheckpointError, match=r"1 of 194 weights missing \(quant_conv\.weight\)"):
            open_checkpoint(folder, MODEL)

    def test_a_key_of_another_model(self, folder: Path):
        change_torch_file(folder / layout.TEXT_ENCODER, **{"blocks.7.norm1.weight": torch.ones(16)})
        with pytest.raises(CheckpointError, match=r"1 unknown \(encoder\.block\.7"):
            open_checkpoint(folder, MODEL)

    def test_another_shape(self, folder: Path):
        change_torch_file(folder / layout.VAE, **{"conv1.bias": torch.ones(5)})
        with pytest.raises(CheckpointError, match=r"quant_conv\.bias is \[5\]; the model has \[32\]"):
            open_checkpoint(folder, MODEL)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_values_that_are_not_finite(self, folder: Path, value: float):
        bias = torch.zeros(32, dtype=torch.bfloat16)
        bias[3] = value
        change_torch_file(folder / layout.VAE, **{"conv1.bias": bias})
        source = open_checkpoint(folder, MODEL)["vae"]
        with pytest.raises(CheckpointError, match=rf"{layout.VAE}: conv1\.bias holds values that are not finite"):
            source.read("quant_conv.bias")
        source.read("quant_conv.bias", slice(4, 8))

    def test_code_in_a_torch_file_is_not_run(self, folder: Path, tmp_path: Path):
        class Hostile:
            def __reduce__(self) -> tuple:
                return Path.touch, (tmp_path / "owned",)

        torch.save({"conv1.weight": Hostile()}, folder / layout.VAE)
        with pytest.raises(CheckpointError, match=layout.VAE):
            open_checkpoint(folder, MODEL)
        assert not (tmp_path / "owned").exists()

    def test_another_architecture(self, folder: Path):
        config = json.loads((folder / layout.CONFIG).read_text())
        (folder / layout.CONFIG).write_text(json.dumps({**config, "enable_motioner": True}))
        with pytest.raises(CheckpointError, match="enable_motioner is True"):
            read_model_params(folder)

    def test_a_recipe_for_another_size(self, folder: Path):
        larger = replace(MODEL, vae=VaeParams(base_dim=8))
        with pytest.raises(CheckpointError, match="vae"):
            open_checkpoint(folder, larger)

    def test_statistics_without_a_place(self, tmp_path: Path, weights: dict):
        model = replace(MODEL, vae=replace(MODEL.vae, latents_mean=(0.0,) * 16))
        with pytest.raises(CheckpointError, match="latents_mean"):
            write_checkpoint(tmp_path / "new", model, weights)


class TestInspect:
    def test_a_whole_checkpoint_is_usable(self, folder: Path):
        report = inspect_checkpoint(folder)
        assert report.usable
        assert report.model == MODEL
        for part in report.components:
            shapes = expected_shapes(part.name, MODEL)
            assert part.parameters == sum(torch.Size(shape).numel() for shape in shapes.values())
            assert part.dtypes == {"bfloat16": len(shapes)}
        assert {file.path for file in report.files} >= {layout.CONFIG, layout.VAE}
        assert all(file.size_bytes and len(file.sha256 or "") == 64 for file in report.files)

    def test_equal_files_have_equal_hashes(self, folder: Path):
        copy = folder / "copy.pth"
        copy.write_bytes((folder / layout.VAE).read_bytes())
        hashes = {file.path: file.sha256 for file in inspect_checkpoint(folder, values=False).files}
        assert hashes["copy.pth"] == hashes[layout.VAE] != hashes[layout.TEXT_ENCODER]

    def test_everything_that_is_wrong_is_listed(self, folder: Path):
        poisoned = torch.full((32,), float("nan"))
        changes = {"conv1.weight": None, "conv1.bias": poisoned, "conv2.bias": torch.ones(3)}
        change_torch_file(folder / layout.VAE, **changes)
        a_shard(folder).unlink()
        report = inspect_checkpoint(folder, hashes=False)
        problems = {part.name: part.problems for part in report.components}
        assert not report.usable
        assert [problem.split()[0] for problem in problems["vae"][:2]] == [
            "quant_conv.weight",
            "post_quant_conv.bias",
        ]
        assert "conv1.bias holds values that are not finite" in problems["vae"][2]
        assert "is missing" in problems["transformer"][0]
        assert not problems["text_encoder"]

    def test_an_empty_folder_lacks_everything(self, tmp_path: Path):
        report = inspect_checkpoint(tmp_path)
        assert not report.usable
        assert report.problems
        assert all(part.problems for part in report.components)

    def test_no_folder_is_an_error(self, tmp_path: Path):
        with pytest.raises(CheckpointError, match="none"):
            inspect_checkpoint(tmp_path / "none")


SHAPES = {"a.weight": (300, 5000), "b.bias": (40,), "norm.weight": (40,), "conv.gamma": (4, 1, 1)}


class TestSeededSource:
    def source(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> SeededSource:
        return SeededSource(SHAPES, seed, dtype)

    @pytest.mark.parametrize("rows", [slice(0, 1), slice(207, 300), slice(13, 250), slice(5, 5), slice(290, 400)])
    def test_rows_are_those_of_the_whole(self, rows: slice):
        for name in SHAPES:
            assert torch.equal(self.source().read(name, rows), self.source().read(name)[rows])

    def test_values_depend_on_name_and_seed_only(self):
        assert torch.equal(self.source().read("a.weight"), self.source().read("a.weight"))
        assert not torch.equal(self.source(seed=1).read("a.weight"), self.source().read("a.weight"))
        other = SeededSource({"c.weight": (300, 5000)})
        assert not torch.equal(other.read("c.weight"), self.source().read("a.weight"))

    def test_spread_follows_fan_in_gains_are_one_and_biases_small(self):
        weight = self.source().read("a.weight")
        assert weight.std().item() == pytest.approx(5000**-0.5, rel=0.01)
        assert abs(weight.mean().item()) < 1e-3
        assert (self.source().read("norm.weight") == 1).all()
        assert (self.source().read("conv.gamma") == 1).all()
        assert 0 < self.source().read("b.bias").abs().max() < 0.1

    def test_other_types_are_the_rounded_values(self):
        rounded = self.source(dtype=torch.bfloat16).read("a.weight", slice(0, 50))
        assert torch.equal(rounded, self.source().read("a.weight", slice(0, 50)).bfloat16())

    def test_rows_are_not_copies_of_one_another(self):
        weight = self.source().read("a.weight")
        normed = weight / weight.norm(dim=1, keepdim=True)
        correlation = (normed @ normed.T).fill_diagonal_(0)
        assert correlation.abs().max() < 0.1


def test_published_names_of_the_transformer_are_its_own():
    assert all(published_name("transformer", name) == name for name in expected_shapes("transformer", MODEL))
