"""A run of the command line that would succeed, and looking at what it left."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from liveavatar_core.cli.main import main

ASSETS = Path(__file__).parents[2] / "assets"
PROGRAM = (sys.executable, "-m", "liveavatar_core")
interrupts = pytest.mark.usefixtures("interruptible")


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


def decoded(path: Path) -> int:
    """Frames that a player finds in the file."""
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


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
