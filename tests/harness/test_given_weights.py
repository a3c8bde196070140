"""A lab's own checkpoint: declared by what is in its files, opened by ranks on cards, never compared with others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from canned import passed, physical
from lab import said
from safetensors.numpy import save_file

from liveavatar_core.errors import BadInput, CheckpointError
from liveavatar_core.recipes import TINY, miniature, single
from liveavatar_core.weight_files import PIECE_BYTES, PIECES, SEEDED, WeightFiles, given_weights
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import read_tiers
from suites.harness.records.machine_identity import machine_identity, machine_profile_name
from suites.harness.records.record import DeclaredRecipe
from suites.harness.verdicts.measured import metrics

pytest_plugins = ["pytester"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """What looks like a checkpoint, one of its files larger than what is read of it, and a LoRA."""
    folder = tmp_path / "ckpt"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("no weights")
    (folder / "weights.pth").write_bytes(bytes(2 * PIECES * PIECE_BYTES))
    (tmp_path / "lora.safetensors").write_bytes(b"lora")
    return folder, tmp_path / "lora.safetensors"


def test_the_digest_is_of_contents_and_not_of_places(files, tmp_path):
    given = WeightFiles.of_files(*files)
    assert len(given.digest) == 16
    (files[0] / "README.md").write_text("other words")
    elsewhere = files[0].rename(tmp_path / "elsewhere")
    assert WeightFiles.of_files(elsewhere, files[1]) == given


@pytest.mark.parametrize("place", [0, -1], ids=["first byte", "last byte"])
def test_other_contents_are_other_weights(files, place):
    given = WeightFiles.of_files(*files)
    content = bytearray((files[0] / "weights.pth").read_bytes())
    content[place] = 1
    (files[0] / "weights.pth").write_bytes(content)
    changed = WeightFiles.of_files(*files)
    files[1].write_bytes(b"another")
    assert len({given.digest, changed.digest, WeightFiles.of_files(*files).digest}) == 3


def test_a_checkpoint_and_its_lora_are_given_together(files, tmp_path):
    assert given_weights(None, None) == SEEDED
    for given in ((str(files[0]), None), (None, str(files[1])), (str(tmp_path), str(files[1])), (str(files[0]), "no")):
        with pytest.raises(BadInput, match=r"--ckpt_dir|--lora_path_dmd"):
            given_weights(*given)


def test_real_cards_are_given_them_and_imitations_are_not(files, tmp_path):
    weights = WeightFiles.of_files(*files)
    tier = read_tiers(weights=weights)["gpu5x24"]
    case = tier.case("published_sharded")
    declared = {mode: RunPlan.full_size(tier, case, mode, tmp_path).recipe for mode in ("physical", "simulated")}
    assert declared["physical"].weights.ckpt_dir == str(files[0])
    assert declared["simulated"].weights == SEEDED
    assert declared["physical"].hash != declared["simulated"].hash
    record = DeclaredRecipe.of(declared["physical"])
    assert record.weights_digest == weights.digest
    assert str(tmp_path) not in str(record.declared)


def with_weights(digest: str):
    record = physical(clips=(1.0,))
    declared = record.recipe.declared | {"weights": {"digest": digest}}
    return replace(record, recipe=replace(record.recipe, declared=declared))


def test_baselines_of_different_weights_never_meet():
    names = {machine_profile_name(machine_identity(with_weights(digest))) for digest in ("", "a" * 16, "b" * 16)}
    assert len(names) == 3
    assert machine_identity(with_weights("")) == machine_identity(physical(clips=(1.0,)))


def test_a_video_of_random_weights_is_nobodys_baseline():
    quality = {"sharpness_ratio": 0.5, "nan_blocks_count": 0.0}
    random, trained = (replace(with_weights(digest), quality=quality) for digest in ("", "a" * 16))
    assert "sharpness_ratio" not in metrics(random)
    assert "nan_blocks_count" in metrics(random)
    assert set(quality) <= set(metrics(trained))
    assert set(quality) <= set(metrics(replace(passed(hardware="miniature"), quality=quality)))


def test_an_option_comes_before_the_environment_and_that_before_the_file(lab, files, monkeypatch):
    lab.put(passed())
    lab.pytester.makeini("[pytest]\nckpt_dir = of_the_file\nlora_path_dmd = lora\n")
    assert "--ckpt_dir of_the_file holds no config.json" in said(lab.run_apart())
    monkeypatch.setenv("LIVE_AVATAR_CKPT_DIR", "of_the_environment")
    assert "--ckpt_dir of_the_environment holds no config.json" in said(lab.run_apart())
    assert "--ckpt_dir of_the_option holds no config.json" in said(lab.run_apart("--ckpt_dir=of_the_option"))


def test_a_session_says_where_given_weights_were_not_taken(lab, files):
    lab.put(passed())
    given = (f"--ckpt_dir={files[0]}", f"--lora_path_dmd={files[1]}")
    words = "weights-not-taken: --ckpt_dir was given, and runs that are simulated take no checkpoint"
    assert words in said(lab.run_apart(*given))
    assert words not in said(lab.run_apart())


def test_ranks_open_the_files_that_the_recipe_names(tmp_path):
    from liveavatar_core.parallel.load import seeded_weights
    from liveavatar_core.weights.checkpoint import write_checkpoint
    from liveavatar_core.weights.given import open_given

    recipe = miniature(single(1))
    recipe = replace(recipe, deployment=replace(recipe.deployment, lora="none"))
    other_seed = replace(recipe, clip=replace(recipe.clip, base_seed=7))
    write_checkpoint(tmp_path / "ckpt", TINY, seeded_weights(other_seed))
    save_file({"none": np.zeros(1, np.float32)}, tmp_path / "lora.safetensors")
    given = WeightFiles.of_files(tmp_path / "ckpt", tmp_path / "lora.safetensors")
    weights, tokenizer = open_given(replace(recipe, weights=given))
    plain, bytes_alone = open_given(recipe)
    name = "blocks.0.self_attn.q.weight"
    assert (weights["transformer"].read(name) == seeded_weights(other_seed)["transformer"].read(name)).all()
    assert (weights["transformer"].read(name) != plain["transformer"].read(name)).any()
    assert tokenizer is not None
    assert bytes_alone is None
    (tmp_path / "ckpt").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="is not on this machine"):
        open_given(replace(recipe, weights=given))
