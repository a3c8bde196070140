"""Which portrait, voice and prompt runs are given unless somebody gives others. Free of torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from liveavatar_core.workload import Workload

ASSETS = Path(__file__).parents[3] / "assets"
PORTRAIT, HEAD, VOICE = ASSETS / "portrait.png", ASSETS / "head.png", ASSETS / "voice.wav"
PROMPT = "A person talks to the camera and smiles."


@cache
def full_size_workload() -> Workload:
    """The drawn portrait, 512x768, and the voice that ships: what the 14B is given."""
    return Workload.of_files(PORTRAIT, VOICE, PROMPT)


@cache
def miniature_workload() -> Workload:
    """A head of the kind that the tiny avatar was trained on, with the same voice and prompt."""
    return Workload.of_files(HEAD, VOICE, PROMPT)


def given_workload(image: str | None, audio: str | None, prompt: str | None) -> Workload | None:
    """The workload that a person gave, the rest as shipped; None if nothing was given.

    Raises:
        BadInput: a file cannot be used.
    """
    if image is None and audio is None and prompt is None:
        return None
    return Workload.of_files(Path(image or PORTRAIT), Path(audio or VOICE), PROMPT if prompt is None else prompt)
