"""What a person can get wrong is refused in two lines, with exit status 2, before anything is loaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import save_file

from liveavatar_core import media, strict
from liveavatar_core.cli import generate
from liveavatar_core.cli.main import main
from liveavatar_core.errors import BadData, BadInput, CheckpointError
from liveavatar_core.weights.files import SafetensorsSource, TorchFileSource
from suites.harness.cases.tiers import read_tiers
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.baselines import read_baseline
from suites.harness.verdicts.index import read_index
from suites.harness.verdicts.waivers import read_waivers

HUGE = "100000000000000000000"
NUMBERS = ("num_clip", "sample_steps", "infer_frames", "num_gpus_dit", "ulysses_size", "lora_rank", "base_seed")
SIZES = (
    "9999999*9999999",
    "99999999999*9",
    "0*0",
    "-704*384",
    "704*-384",
    "704*384*2",
    "a*b",
    "",
    "*",
    "704 * 384",
    "64",
)
OPTIONS = [
    *((name, value) for name in NUMBERS for value in ("-1", HUGE, "1e20", "nan", "")),
    *(("size", value) for value in SIZES),
    *(("prompt", value) for value in ("", "   ", "\n\t", "a\x1b[2Jb", "a\x00b")),
    *(("base_seed", value) for value in ("100000000000000000000000", "1.5")),
    *(("sample_guide_scale", value) for value in ("nan", "inf", "4.5", "-1")),
    *(("storage_dtype", value) for value in ("float16", "", "FLOAT32")),
    ("shard", "flat"),
    ("fp8_multiply", "False"),
    ("timestep_pipeline", "True"),
    ("t5_on_decode_rank", "True"),
    ("device", "tpu"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A portrait and a voice; whoever begins to load a model fails the test."""
    Image.new("RGB", (64, 96), (200, 150, 120)).save(tmp_path / "face.png")
    soundfile.write(tmp_path / "voice.wav", tone(2.0), 16_000)

    def loaded(*given: object) -> None:
        pytest.fail("the model was about to be loaded")

    monkeypatch.setattr(generate, "open_weights", loaded)
    return tmp_path


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(np.arange(int(seconds * 16_000)) * 0.05)).astype(np.float32)


def arguments(folder: Path, **changed: str) -> list[str]:
    given = {"image": f"{folder}/face.png", "audio": f"{folder}/voice.wav", "prompt": "p", "device": "cpu"}
    given |= {"save_file": f"{folder}/out.mp4"} | changed
    return ["generate", *(f"--{name}={value}" for name, value in given.items())]


def refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(given) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (out, len(lines)) == ("", 2)
    assert lines[1].startswith("next: ")
    assert err.replace("\n", "").isprintable()
    return lines[0]


@pytest.mark.parametrize(("name", "value"), OPTIONS, ids=lambda value: repr(value)[:24])
def test_an_option_that_no_run_could_have(folder: Path, capsys, name: str, value: str):
    refused(arguments(folder, **{name: value}), capsys)


def test_nothing_of_it_takes_longer_than_reading(folder: Path):
    """A process of its own: torch is not even imported."""
    code = "import sys; from liveavatar_core.cli.main import main; code = main(sys.argv[1:]); "
    code += "assert 'torch' not in sys.modules; sys.exit(code)"
    for changed in ({"size": "9999999*9999999"}, {"num_clip": HUGE}, {"base_seed": "-1"}, {"prompt": " "}):
        command = [sys.executable, "-c", code, *arguments(folder, **changed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 2), done.stderr


def quiet_start(samples: np.ndarray, first: float) -> np.ndarray:
    samples = samples.copy()
    samples[0] = first
    return samples


SOUNDS = {
    "beyond all loudness": (quiet_start(tone(1.0), 4e29), "samples of 4e+29, where 1 is full scale and 16 the most"),
    "infinite": (quiet_start(tone(1.0), np.inf), "not finite"),
    "no number": (quiet_start(tone(1.0), np.nan), "not finite"),
    "silent": (np.zeros(16_000, np.float32), "silent"),
    "short": (tone(0.05), "0.1 s is the least"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_that_is_no_voice(folder: Path, capsys, name: str):
    samples, named = SOUNDS[name]
    soundfile.write(folder / "voice.wav", samples, 16_000, subtype="FLOAT")
    assert named in refused(arguments(folder), capsys)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_hours_of_sound_are_refused_before_they_are_decoded(folder: Path, capsys, monkeypatch, suffix: str):
    path = folder / f"long.{suffix}"
    with soundfile.SoundFile(path, "w", 8_000, 1) as file:
        for _ in range(121):
            file.write(np.zeros(60 * 8_000, np.float32))
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("it was decoded"))
    assert "lasts 7260 s or more; 3600 s is the most" in refused(arguments(folder, audio=str(path)), capsys)


def test_a_container_that_does_not_say_how_long_it_is_is_counted(tmp_path: Path, monkeypatch):
    path = tmp_path / "live.mkv"
    with av.open(str(path), "w", format="matroska", options={"live": "1"}) as file:
        stream = file.add_stream("flac", rate=16_000, layout="mono")
        for at, piece in enumerate((tone(2.0) * 2**15).astype(np.int16).reshape(20, 1, -1)):
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.rate, frame.pts = 16_000, at * piece.size
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with av.open(str(path)) as file:
        assert file.duration is None
    assert len(media.read_audio(path)) == 32_000
    monkeypatch.setattr(media, "LONGEST_VOICE_SECONDS", 1.5)
    with pytest.raises(BadInput, match="s or more; 2 s is the most"):
        media.read_audio(path)


@pytest.mark.parametrize("path", ["gone", ".", "/dev/null", "face.png", "/proc/self/mem"])
def test_a_voice_that_is_no_sound_file(folder: Path, capsys, path: str):
    refused(arguments(folder, audio=str(folder / path)), capsys)


DEEP = "a = " + "[" * 5000 + "]" * 5000
READERS = {
    "tiers": lambda path: read_tiers(path),
    "baseline": read_baseline,
    "waivers": read_waivers,
    "index": lambda path: read_index(path.parent),
    "toml": strict.read_toml,
}
TEXTS = {
    "deep": DEEP,
    "deep tables": "".join(f"[{'.'.join('a' * n)}]\n" for n in range(2, 3)) + "a = " + "{a=" * 3000 + "1" + "}" * 3000,
    "cut": "[machine",
    "a list": "machine = [1, 2]",
    "empty string": '[""]\n"" = 1',
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("reader", [name for name in READERS if name != "toml"])
def test_a_data_file_that_means_nothing(tmp_path: Path, reader: str, text: str):
    path = tmp_path / "index.toml"
    path.write_text(TEXTS[text])
    with pytest.raises(BadData, match=r"index\.toml"):
        READERS[reader](path)


@pytest.mark.parametrize("value", ['"9999999*9999999"', '"1*1"', "3"])
def test_a_tier_with_a_clip_that_no_run_could_make(tmp_path: Path, value: str):
    path = tmp_path / "lab.toml"
    case = f'recipe = "single"\nclip = {{ size = {value} }}\nexpect = {{ outcome = "pass", because = "b" }}\n'
    path.write_text(f'[lab]\ntitle = "t"\ncards = 1\ncard = "L40S"\n[lab.cases.a]\n{case}')
    with pytest.raises(BadData, match=r"lab\.toml"):
        read_tiers(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "null", '{"schema": 1e999}', ""], ids=lambda text: text[:9])
def test_a_record_that_is_none(text: str):
    with pytest.raises(BadData):
        RunRecord.from_json(text)


NAMES = ["a\x1b[2J.weight", "a\x00b", "a\rb", "a\nb", "\u202eb"]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_weight_whose_name_is_no_text(tmp_path: Path, name: str):
    save_file({name: torch.zeros(1)}, tmp_path / "a.safetensors")
    torch.save({name: torch.zeros(1)}, tmp_path / "a.pth")
    for opened in (
        lambda: SafetensorsSource([tmp_path / "a.safetensors"]),
        lambda: TorchFileSource(tmp_path / "a.pth"),
    ):
        with pytest.raises(CheckpointError, match="which is no text") as caught:
            opened()
        assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize("shard", ["../../outside.safetensors", "/etc/passwd", "..", "", "a/b.safetensors", "a\x00"])
def test_an_index_that_names_a_file_elsewhere(tmp_path: Path, shard: str):
    outside = tmp_path / "outside.safetensors"
    save_file({"a": torch.zeros(1)}, outside)
    inner = tmp_path / "x/y"
    inner.mkdir(parents=True)
    (inner / "index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match="which is no file beside it"):
        SafetensorsSource.from_index(inner / "index.json")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_commands_are_imported_is_no_traceback(tmp_path: Path, signum: int, interruptible: None):
    """The command line's first import waits: whenever the signal comes, it comes before commands are there."""
    waiting = "import os, time\nos.write(1, b'importing')\ntime.sleep(600)\n"
    code = "import sys, runpy; sys.path.insert(0, sys.argv.pop()); sys.argv[1:] = ['generate']\n"
    code += "import importlib.abc, importlib.util\n"
    code += "class Finder(importlib.abc.MetaPathFinder):\n"
    code += "    def find_spec(self, name, path, target=None):\n"
    code += "        if name == 'liveavatar_core.cli.main':\n"
    code += "            return importlib.util.spec_from_file_location(name, sys.path[0] + '/waiting_main.py')\n"
    code += "sys.meta_path.insert(0, Finder())\nrunpy.run_module('liveavatar_core', run_name='__main__')\n"
    (tmp_path / "waiting_main.py").write_text(waiting)
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert os.read(process.stdout.fileno(), 9) == b"importing"
        process.send_signal(signum)
        _, err = process.communicate()
    assert (process.returncode, err) == (128 + signum, b"stopped\n")
