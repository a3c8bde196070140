"""Command lines of Live Avatar's own scripts, pasted behind `generate`; and recipes by name."""

from __future__ import annotations

import shlex

import pytest
from command_line import arguments, decoded, refusal

from liveavatar_core.cli.generate import read_recipe
from liveavatar_core.cli.main import main, make_parser
from liveavatar_core.cli.script_options import REFUSED
from liveavatar_core.recipes import RECIPES, named_recipe

COMMON = """ --task s2v-14B --base_seed 420
 --training_config liveavatar/configs/s2v_causal_sft.yaml --convert_model_dtype
 --prompt "A dwarf." --image examples/dwarven_blacksmith.jpg --audio examples/dwarven_blacksmith.wav --infer_frames 48
 --load_lora --sample_steps 4 --sample_guide_scale 0 --sample_solver euler --lora_path_dmd "Quark-Vision/Live-Avatar"
 --ckpt_dir ckpt/Wan2.2-S2V-14B/"""
SCRIPTS = {
    "single": "--ulysses_size 1 --size 704*384 --offload_model True --num_clip 100 --num_gpus_dit 1 --single_gpu",
    "multi": "--ulysses_size 1 --size 720*400 --offload_model False --num_clip 10000 --num_gpus_dit 4"
    " --enable_vae_parallel --fp8",
}
"""The options of the published scripts for one card and for five."""


def pasted(script: str) -> list[str]:
    return ["generate", *shlex.split(COMMON), *shlex.split(SCRIPTS[script])]


@pytest.mark.parametrize(("script", "cards", "pipeline"), [("single", 1, False), ("multi", 5, True)])
def test_a_published_script_is_read_as_it_was_meant(tmp_path, monkeypatch, script, cards, pipeline):
    """With the LoRA as a file; five cards are the timestep pipeline there."""
    monkeypatch.setattr("liveavatar_core.cli.generate.read_model", lambda options: named_recipe("single", 1).model)
    lora = tmp_path / "liveavatar.safetensors"
    lora.touch()
    recipe = read_recipe(make_parser().parse_args([*pasted(script), f"--lora_path_dmd={lora}"]))
    assert (recipe.deployment.num_cards, recipe.deployment.timestep_pipeline) == (cards, pipeline)
    assert (recipe.deployment.fp8, recipe.deployment.offload_model) == (script == "multi", script == "single")
    assert (recipe.clip.size, recipe.clip.base_seed) == ("720*400" if pipeline else "704*384", 420)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_lora_that_is_a_repository_is_told_how_to_be_fetched(folder, capsys, script):
    assert main(pasted(script)) == 2
    what, step, _ = capsys.readouterr().err.split("\n")
    assert what.startswith("--lora_path_dmd Quark-Vision/Live-Avatar is no file")
    assert step.startswith(
        "next: hf download Quark-Vision/Live-Avatar liveavatar.safetensors --local-dir FOLDER, then "
    )


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("value", [[], ["anything"]])
def test_an_option_that_means_nothing_here_is_refused_by_name(capsys, name, value):
    assert main([*pasted("single"), f"--{name}", *value]) == 2
    assert capsys.readouterr().err == f"--{name} of Live Avatar's scripts is no option here\nnext: {REFUSED[name]}\n"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"task": "t2v-A14B"}, "--task t2v-A14B is not s2v-14B"),
        ({"sample_solver": "unipc"}, "--sample_solver unipc is not euler"),
        ({"sample_shift": "5"}, "--sample_shift 5 is not 3"),
        ({"training_config": "my/other.yaml"}, "--training_config my/other.yaml is not s2v_causal_sft.yaml"),
        ({"save_dir": "videos"}, "--save_dir videos and --save_file "),
    ],
)
def test_another_value_is_refused(folder, capsys, changed, expected):
    assert refusal(arguments(folder, **changed), folder, capsys).startswith(expected)


@pytest.mark.parametrize(
    ("flag", "changed", "expected"),
    [
        ("--single_gpu", {"num_gpus_dit": "2", "ulysses_size": "2"}, "--single_gpu, and a deployment over 2 cards"),
        ("--load_lora", {"lora": "none"}, "--load_lora and --lora none contradict each other"),
        (
            "--convert_model_dtype",
            {"compute_dtype": "bfloat16"},
            "--convert_model_dtype, and weights stored in float32",
        ),
    ],
)
def test_a_flag_that_contradicts_the_layout_is_refused(folder, capsys, flag, changed, expected):
    assert refusal([*arguments(folder, **changed), flag], folder, capsys).startswith(expected)


def test_a_folder_in_place_of_a_file_gets_the_video(folder):
    given = [each for each in arguments(folder, save_dir=str(folder)) if "save_file" not in each]
    assert main([*given, "--single_gpu", "--load_lora", "--convert_model_dtype", "--task", "s2v-14B"]) == 0
    assert decoded(folder / "out.mp4") == 12


@pytest.mark.parametrize(
    ("name", "cards"), [("single", 1), ("block_offload_fp8", 1), ("bf16_sharded", 4), ("encoders_freed", 4)]
)
def test_a_recipe_by_name_is_its_clip_and_its_layout(monkeypatch, name, cards):
    monkeypatch.setenv("WORLD_SIZE", str(cards))
    base = ["generate", "--image=i", "--audio=a", "--prompt=p", "--seeded_weights=14b"]
    recipe = read_recipe(make_parser().parse_args([*base, f"--recipe={name}"]))
    assert (recipe.clip, recipe.deployment) == (named_recipe(name, cards).clip, named_recipe(name, cards).deployment)


def test_what_is_given_beside_a_recipe_changes_it_before_and_after():
    base = ["generate", "--image=i", "--audio=a", "--prompt=p", "--seeded_weights=14b"]
    recipe = read_recipe(
        make_parser().parse_args([*base, "--size=384*256", "--recipe=block_offload", "--offload_model=no"])
    )
    assert (recipe.clip.size, recipe.deployment.offload_model, recipe.deployment.offload_blocks) == (
        "384*256",
        False,
        True,
    )


def test_a_recipe_that_does_not_exist_or_not_on_so_many_cards_is_refused(folder, capsys, monkeypatch):
    assert "invalid choice: 'singel'" in refusal(arguments(folder, recipe="singel"), folder, capsys)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "recipe single runs on 1 card, not 2" in refusal(arguments(folder, recipe="single"), folder, capsys)


def test_every_recipe_can_be_named(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    text = "".join(capsys.readouterr().out.split())
    assert "--recipe{" + ",".join(RECIPES) + "}" in text
