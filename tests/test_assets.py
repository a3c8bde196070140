"""The input files are what assets/README.md says they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile
from PIL import Image

ASSETS = Path(__file__).parents[1] / "assets"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ASSETS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_draws_the_committed_portrait():
    committed = np.asarray(Image.open(ASSETS / "portrait.png").convert("RGB"))
    assert committed.shape == (768, 512, 3)
    np.testing.assert_array_equal(np.asarray(script("draw_portrait").draw()), committed)


def test_the_script_draws_the_committed_head():
    committed = np.asarray(Image.open(ASSETS / "head.png"))
    assert committed.shape == (512, 512, 3)
    np.testing.assert_array_equal(np.asarray(script("draw_head").head()), committed)


def test_the_voice_is_audible_speech_with_pauses():
    samples, rate = soundfile.read(ASSETS / "voice.wav")
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    loudness_dbfs = 20 * np.log10(np.sqrt((frames**2).mean(1)) + 1e-6)
    assert (rate, samples.ndim) == (16_000, 1)
    assert 6 <= len(samples) / rate <= 8
    assert 0.6 < np.abs(samples).max() < 0.8
    assert (loudness_dbfs > -40).mean() > 0.6
    assert (loudness_dbfs < -60).mean() > 0.02


def test_each_file_has_an_origin_and_a_licence():
    rows = (ASSETS / "README.md").read_text()
    for file in ASSETS.iterdir():
        if file.is_file() and file.name != "README.md":
            assert f"`{file.name}`" in rows
    assert rows.count("CC0-1.0](") == 4
