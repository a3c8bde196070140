"""A machine without codecs collects every suite, and keeps the frames that it cannot encode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lab import ROOT

BLOCKED = ("av", "soundfile", "soxr", "ftfy", "diffusers")
CODECS = ("av", "soundfile", "soxr")
ABSENT = """
from importlib.machinery import PathFinder

class Find:
    def __init__(self, find):
        self.find = find

    def __call__(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.find(name, path, target)

PathFinder.find_spec = Find(PathFinder.find_spec)
"""


def python(folder: Path, *command: str, blocked: tuple[str, ...] = BLOCKED) -> subprocess.CompletedProcess[str]:
    """Run Python where it, and all processes that it starts, find nothing of `blocked`."""
    (folder / "sitecustomize.py").write_text(ABSENT.replace("BLOCKED", repr(blocked)))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    done = [sys.executable, *command]
    return subprocess.run(done, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_every_suite_is_collected(tmp_path: Path):
    done = python(tmp_path, "-m", "pytest", "--collect-only", "-q", "suites")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "gpu5x24" in done.stdout


def test_every_worker_and_command_is_imported(tmp_path: Path):
    modules = "suites.harness.workers.cuda, suites.harness.workers.miniature, suites.harness.workers.simulate"
    core = (
        "liveavatar_core.pipeline, liveavatar_core.media, liveavatar_core.cli.main, liveavatar_core.weights.checkpoint"
    )
    done = python(tmp_path, "-c", f"import {modules}, {core}")
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_run_without_an_encoder_keeps_its_frames_and_says_so(tmp_path: Path):
    report = tmp_path / "report"
    run = ("-m", "gpu1x24", "--hardware=miniature", "--baseline-compare=off", f"--report-dir={report}")
    done = python(tmp_path, "-m", "pytest", "-q", *run, "suites/tiers", blocked=CODECS)
    records = [json.loads(path.read_text()) for path in report.rglob("*.json")]
    kept = [record["video_format"] for record in records if record.get("outcome") == "pass"]
    assert kept, done.stdout[-3000:]
    assert set(kept) == {"png"}
    pictures = sorted(report.rglob("frames/*.png"))
    assert [path.name for path in pictures][:2] == ["00000.png", "00001.png"]
    assert any("frames are kept as PNG" in log.read_text() for log in report.rglob("*.log"))


def test_the_voice_that_ships_is_the_same_without_codecs(tmp_path: Path):
    code = "from liveavatar_core.media import read_audio; print(read_audio('assets/voice.wav').tobytes().hex())"
    without, within = python(tmp_path, "-c", code), python(tmp_path, "-c", code, blocked=())
    assert without.stdout == within.stdout != ""


def test_another_recording_is_refused_with_what_reads_it(tmp_path: Path):
    (tmp_path / "voice.mp3").write_bytes(b"ID3" + bytes(100))
    code = f"from liveavatar_core.media import read_audio; read_audio({str(tmp_path / 'voice.mp3')!r})"
    assert "next: pip install soundfile, or give a WAV file of 16 bits" in python(tmp_path, "-c", code).stderr
