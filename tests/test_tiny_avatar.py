"""The avatar that ships is small, loads as any checkpoint does, and talks."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from liveavatar_core.recipes import TINY
from liveavatar_core.weights.layout import read_model_params
from liveavatar_core.weights.shipped import FOLDER, LORA
from tiny_avatar.training.evaluate import Shown, evaluate, metrics, mouth_correlation

MOST_BYTES = 16_000_000


@pytest.fixture(scope="module")
def shown() -> list[Shown]:
    """Videos of three faces, voices and prompts that it never saw."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("voices are spoken by espeak-ng, which is not installed")
    return evaluate(3)


def test_it_is_small_enough_for_git() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= MOST_BYTES


def test_its_dimensions_are_read_from_the_published_layout() -> None:
    assert read_model_params(FOLDER) == TINY
    assert LORA.is_file()


@pytest.fixture(scope="module")
def measured(shown: list[Shown]) -> dict[str, float]:
    return metrics(shown)


def test_portrait_voice_and_prompt_can_be_told_from_the_video(measured: dict[str, float]) -> None:
    assert measured["portrait_recognised_share"] == 1
    assert measured["light_recognised_share"] == 1
    assert measured["mouth_correlation"] > 0.5
    assert measured["psnr_db"] > measured["psnr_vae_db"] - 3


def test_a_video_out_of_step_with_its_voice_is_told_from_one_in_step(
    shown: list[Shown], measured: dict[str, float]
) -> None:
    late = [mouth_correlation(np.roll(one.made_JHWC, 20, axis=0), one.truth) for one in shown]
    assert np.mean(late) < measured["mouth_correlation"] - 0.3


def test_its_training_is_on_record() -> None:
    logs = sorted(
        path.stem for path in (Path(__file__).parents[1] / "tiny_avatar" / "training" / "log").glob("*.jsonl")
    )
    assert {"vae_pictures", "vae", "vae_mouths", "text_encoder", "audio_encoder", "flow_1", "lora"} <= set(logs)
