"""Which portrait, voice and prompt runs are given unless somebody gives others. Free of torch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from liveavatar_core.shipped_files import ASSETS
from liveavatar_core.workload import Workload

PORTRAIT, HEAD, VOICE = ASSETS / "portrait.png", ASSETS / "head.png", ASSETS / "voice.wav"
PROMPT = "A person talks to the camera and smiles."


@cache
def full_size_workload() -> Workload:
    """The drawn portrait, 512x768, and the voice that ships: what the 14B is given."""
    return Workload.of_files(PORTRAIT, VOICE, PROMPT)


def case_workload(max_area: int, portrait: str | None, voice_seconds: float | None) -> Workload:
    """What a case at full size is given: the shipped files, the portrait cut to the shape that the case declares.

    Args:
        max_area: pixels of the video, at most.
        portrait: WIDTHxHEIGHT in pixels; None: the one that makes the most tokens.
        voice_seconds: how long the voice is; None: as long as the clips.
    """
    shape = Workload.of_portrait(portrait) if portrait else Workload.largest(max_area)
    return replace(
        full_size_workload(),
        portrait_height=shape.portrait_height,
        portrait_width=shape.portrait_width,
        voice_seconds=voice_seconds,
    )


@cache
def miniature_workload() -> Workload:
    """A head of the kind that the tiny avatar was trained on, with the same voice and prompt."""
    return replace(Workload.of_files(HEAD, VOICE, PROMPT), voice_seconds=None)


def given_workload(image: str | None, audio: str | None, prompt: str | None) -> Workload | None:
    """The workload that a person gave, the rest as shipped; None if nothing was given.

    Raises:
        BadInput: a file cannot be used.
    """
    if image is None and audio is None and prompt is None:
        return None
    return Workload.of_files(Path(image or PORTRAIT), Path(audio or VOICE), PROMPT if prompt is None else prompt)
