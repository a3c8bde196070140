"""Input files for commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import ASSETS
from PIL import Image


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
