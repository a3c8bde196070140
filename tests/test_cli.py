"""The command line: what it refuses and how, what it leaves behind, how it is stopped."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from waiting import PATIENCE

from liveavatar_core.cli import field_options as options_module
from liveavatar_core.cli.main import main
from liveavatar_core.cli.progress_bar import show_progress
from liveavatar_core.cli.stop_signals import Stopped, StopSignals
from liveavatar_core.cli.video_output import record
from liveavatar_core.config import ClipSpec, Deployment
from liveavatar_core.errors import MemoryShortage, OutOfMemory

ASSETS = Path(__file__).parents[1] / "assets"
PROGRAM = (sys.executable, "-m", "liveavatar_core")
interrupts = pytest.mark.usefixtures("interruptible")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of input files, good and bad."""
    Image.new("RGB", (64, 96), (200, 150, 120)).save(tmp_path / "face.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((ASSETS / "portrait.png").read_bytes()[:5000])
    tone = 0.3 * np.sin(np.arange(48_000) * 0.05).astype(np.float32)
    soundfile.write(tmp_path / "voice.wav", tone[:32_000], 16_000)
    soundfile.write(tmp_path / "stereo48.wav", np.stack([tone, tone], 1), 48_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(32_000, np.float32), 16_000)
    soundfile.write(tmp_path / "short.wav", tone[:800], 16_000)
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").touch()
    return tmp_path


def arguments(folder: Path, **changed: str) -> list[str]:
    """A small run that would succeed, with changes."""
    given = {
        "image": str(folder / "face.png"),
        "audio": str(folder / "voice.wav"),
        "prompt": "A face that speaks.",
        "size": "64*96",
        "infer_frames": "12",
        "sample_steps": "1",
        "seeded_weights": "tiny",
        "device": "cpu",
        "compute_dtype": "float32",
        "storage_dtype": "float32",
        "save_file": str(folder / "out.mp4"),
        **changed,
    }
    return ["generate", *(f"--{name}={value}" for name, value in given.items())]


def refusal(given: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a run that must be refused: exit code 2, two lines, no output, nothing left behind."""
    before = sorted(folder.rglob("*"))
    assert main(given) == 2
    out, err = capsys.readouterr()
    what, following, end = err.split("\n")[-3:]
    assert (out, end) == ("", "")
    assert following.startswith("next: ")
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before
    return what


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
    assert make_parser().parse_args([*base, *given]).offload_model is expected


def frames(count: int, value: int) -> np.ndarray:
    return np.full((count, 64, 64, 3), value, np.uint8)


def decoded(path: Path) -> int:
    """Frames that a player finds in the file."""
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def open_writer_at(path: Path):
    from liveavatar_core.media import VideoWriter

    voice = 0.1 * np.ones(32_000, np.float32)
    return lambda height, width: VideoWriter(path, height, width, audio=voice)


@interrupts
def test_a_signal_while_frames_are_made_keeps_those_that_were(tmp_path):
    def blocks():
        yield frames(12, 50)
        yield frames(12, 90)
        os.kill(os.getpid(), signal.SIGTERM)
        yield frames(12, 130)

    with StopSignals() as signals:
        recorded = record(blocks(), open_writer_at(tmp_path / "out.mp4"), lambda: None, signals)
    assert (recorded.frames, recorded.stopped.exit_code) == (24, 143)
    assert decoded(tmp_path / "out.mp4") == 24
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


class Impatient:
    """A writer whose user presses Ctrl-C while it works."""

    def __init__(self, writer, *, at: str) -> None:
        self.writer, self.at = writer, at

    def __enter__(self):
        self.writer.__enter__()
        return self

    def write(self, block):
        self.interrupt("write")
        self.writer.write(block)

    def __exit__(self, *error):
        self.interrupt("close")
        return self.writer.__exit__(*error)

    def interrupt(self, now: str) -> None:
        if now == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@interrupts
@pytest.mark.parametrize(("at", "kept", "code"), [("write", 12, 130), ("close", 24, None)])
def test_a_signal_while_the_file_is_written_waits_until_that_is_done(tmp_path, at, kept, code):
    opened = open_writer_at(tmp_path / "out.mp4")
    blocks = [frames(12, 60), frames(12, 90)]
    with StopSignals() as signals:
        recorded = record(blocks, lambda *size: Impatient(opened(*size), at=at), lambda: None, signals)
    assert recorded.stopped is None if code is None else recorded.stopped.exit_code == code
    assert recorded.frames == decoded(tmp_path / "out.mp4") == kept


def test_an_error_on_the_way_leaves_no_file(tmp_path):
    def blocks():
        yield frames(12, 50)
        sizes = {"requested": 2**30, "free": 2**20, "capacity": 2**34}
        raise OutOfMemory(MemoryShortage(rank=0, phase="denoise", category="activations", **sizes))

    with StopSignals() as signals, pytest.raises(OutOfMemory):
        record(blocks(), open_writer_at(tmp_path / "out.mp4"), lambda: None, signals)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_without_frames_opens_no_file():
    def never(height, width):
        raise AssertionError("opened")

    with StopSignals() as signals:
        assert record([None, None], never, lambda: None, signals).frames == 0


@interrupts
def test_the_handlers_before_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with StopSignals(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@interrupts
def test_a_signal_that_was_ignored_stops_nothing():
    """As shells have it for what runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("width", [20, 40, 80])
def test_the_bar_keeps_to_a_narrow_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    with show_progress(12, 4) as advance:
        for _ in range(47):
            advance()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    lines = re.split(r"[\r\n]+", text)
    assert any(line.startswith("clip 12/12 ") for line in lines)
    assert max(map(len, lines)) <= width


def test_elsewhere_a_line_a_clip_is_printed(capsys):
    with show_progress(2, 3) as advance:
        for _ in range(6):
            advance()
    assert re.fullmatch(r"clip 1/2: [\d.]+ s\nclip 2/2: [\d.]+ s\n", capsys.readouterr().err)


def test_a_video_is_made_with_its_sound(folder):
    import av

    done = subprocess.run([*PROGRAM, *arguments(folder)], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, f"{folder / 'out.mp4'}: 12 frames, 0.48 s, 64x64\n")
    assert re.fullmatch(r"loading the model\nclip 1/1: [\d.]+ s\n", done.stderr)
    with av.open(str(folder / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    assert decoded(folder / "out.mp4") == 12


@interrupts
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_a_playable_video(folder, signum, code):
    before = set(folder.iterdir())
    command = [*PROGRAM, *arguments(folder, num_clip="40", audio=str(ASSETS / "voice.wav"))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stderr:
            if line.startswith("clip 1/"):
                running.send_signal(signum)
                break
        out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == code
    assert err.splitlines()[-1] == "stopped"
    assert set(folder.iterdir()) - before == {folder / "out.mp4"}
    assert f" {decoded(folder / 'out.mp4')} frames, " in out


@interrupts
def test_a_run_stopped_before_its_first_frame_leaves_nothing(folder):
    """In so many steps that the first frame is far."""
    before = set(folder.iterdir())
    with subprocess.Popen(
        [*PROGRAM, *arguments(folder, sample_steps="1000")], stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr.readline() == "loading the model\n"
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, err) == (130, "stopped\n")
    assert set(folder.iterdir()) == before


def test_a_checkpoint_makes_a_video_and_a_damaged_one_is_refused(folder, capsys):
    from liveavatar_core.parallel.load import seeded_weights
    from liveavatar_core.recipes import TINY, miniature, single
    from liveavatar_core.weights.checkpoint import write_checkpoint

    write_checkpoint(folder / "ckpt", TINY, seeded_weights(miniature(single(1))))
    given = arguments(folder, ckpt_dir=str(folder / "ckpt"), lora="none")
    given = [option for option in given if "seeded_weights" not in option]
    assert main(given) == 0
    assert decoded(folder / "out.mp4") == 12

    vae = folder / "ckpt" / "Wan2.1_VAE.pth"
    vae.write_bytes(vae.read_bytes()[:1000])
    capsys.readouterr()
    assert "Wan2.1_VAE.pth" in refusal(given, folder, capsys)
