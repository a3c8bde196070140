"""Options that a person gives: what is wrong is refused in two lines, before anything is loaded."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from command_line import arguments, refusal

from liveavatar_core.cli import field_options as options_module
from liveavatar_core.cli.main import main
from liveavatar_core.config import ClipSpec
from liveavatar_core.deployment import Deployment


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"size": "704x384"}, "size '704x384' is not two numbers"),
        ({"size": "704"}, "size '704' is not two numbers"),
        ({"size": "10*10"}, "100 pixels; 4096"),
        ({"infer_frames": "50"}, "infer_frames 50 is not 12 "),
        ({"infer_frames": "0"}, "infer_frames 0 "),
        ({"num_clip": "0"}, "num_clip 0 is less than 1"),
        ({"num_clip": "many"}, "argument --num_clip: invalid int value: 'many'"),
        ({"sample_guide_scale": "4.5"}, "sample_guide_scale 4.5 has no effect"),
        ({"num_gpus_dit": "5"}, "5 transformer ranks have no work to share"),
        ({"num_gpus_dit": "5", "ulysses_size": "3"}, "ulysses_size 3 is neither 1 nor num_gpus_dit (5)"),
        ({"num_gpus_dit": "5", "ulysses_size": "5"}, "takes 5 processes; 1 started"),
        ({"offload_model": "maybe"}, "'maybe' is neither True nor False"),
        ({"shard": "half"}, "argument --shard: invalid choice: 'half'"),
        ({"seeded_weights": "huge"}, "argument --seeded_weights: invalid choice: 'huge'"),
        ({"ckpt_dir": "."}, "argument --ckpt_dir: not allowed with argument --seeded_weights"),
        ({"lora_path_dmd": "lora.safetensors"}, "lora.safetensors belongs to a checkpoint"),
        ({"no_such_option": "1"}, "unrecognized arguments: --no_such_option=1"),
        ({"num_cli": "1"}, "unrecognized arguments: --num_cli=1"),
    ],
)
def test_a_wrong_option_is_refused(folder, capsys, changed, expected):
    assert expected in refusal(arguments(folder, **changed), folder, capsys)


@pytest.mark.parametrize("name", ["missing.png", "empty.png", "text.png", "cut.png", "voice.wav", ""])
def test_an_unreadable_portrait_is_refused_by_name(folder, capsys, name):
    assert name in refusal(arguments(folder, image=str(folder / name)), folder, capsys)


@pytest.mark.parametrize(
    "name", ["missing.wav", "empty.wav", "text.wav", "silent.wav", "short.wav", "face.png", "line\nbreak.wav"]
)
def test_an_unusable_voice_is_refused_by_name(folder, capsys, name):
    assert name.replace("\n", " ") in refusal(arguments(folder, audio=str(folder / name)), folder, capsys)


@pytest.mark.parametrize("name", ["out.avi", "nowhere/out.mp4", "out"])
def test_a_file_that_could_not_be_written_is_refused_before_the_work(folder, capsys, name):
    assert name.split("/")[0] in refusal(arguments(folder, save_file=str(folder / name)), folder, capsys)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"ckpt_dir": "nowhere", "lora": "none"}, "nowhere/config.json cannot be read"),
        ({"ckpt_dir": "nowhere"}, "lora merged wants a LoRA file; none was given"),
        ({"ckpt_dir": "nowhere", "lora": "none", "lora_path_dmd": "l.safetensors"}, "would not be used"),
    ],
)
def test_weights_that_are_not_there_are_refused(folder, capsys, changed, expected):
    given = [option for option in arguments(folder, **changed) if "seeded_weights" not in option]
    assert expected in refusal(given, folder, capsys)


def test_more_ranks_than_cards_are_refused(folder, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    five = arguments(folder, device="cuda", num_gpus_dit="5", ulysses_size="5")
    assert refusal(five, folder, capsys).startswith("5 rank(s) here, each with a card of its own; 4 cards")


@pytest.mark.parametrize("given", [[], ["generate"], ["paint"]])
def test_missing_arguments_are_refused(tmp_path, capsys, given):
    assert refusal(given, tmp_path, capsys)


def test_wrong_options_are_reported_without_loading_torch(folder):
    run = "import sys; from liveavatar_core.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", run, *arguments(folder, num_clip="0")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_help_shows_every_field_with_its_default(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for of in (ClipSpec, Deployment):
        for field in dataclasses.fields(of):
            if field.name != "quirks":
                about = options_module.field_docstrings(of)[field.name]
                assert len(about) > 10
                assert f"{about} (default: {field.default})" in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], False),
        (["--offload_model"], True),
        (["--offload_model", "True"], True),
        (["--offload_model", "False"], False),
    ],
)
def test_flags_are_given_alone_or_with_a_value(given, expected):
    from liveavatar_core.cli.main import make_parser

    base = ["generate", "--image=i", "--audio=a", "--prompt=p", "--seeded_weights=tiny"]
    options = make_parser().parse_args([*base, *given])
    assert options_module.read_fields(options, Deployment)["offload_model"] is expected
