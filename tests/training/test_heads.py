"""Drawn heads move as they are told, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from tiny_avatar.heads import LIGHTS, Face, Motion, draw
from tiny_avatar.voices import mouth

FACE = Face.drawn_by(np.random.default_rng(3))
STILL = Motion.still(2)


def moved(**changes: object) -> np.ndarray:
    """Frames of one face, something changed."""
    return draw(FACE, replace(STILL, **changes)).astype(int)  # type: ignore[arg-type]


def test_a_still_face_is_the_same_in_every_frame() -> None:
    frames = draw(FACE, STILL)
    assert frames.shape == (2, 64, 64, 3)
    assert frames.dtype == np.uint8
    assert (frames[0] == frames[1]).all()


def test_an_opening_mouth_changes_the_lower_face_alone() -> None:
    frames = moved(opening=np.array([0.0, 1.0]))
    changed = np.abs(frames[1] - frames[0]).max(axis=-1) > 8
    rows = np.flatnonzero(changed.any(axis=1))
    middle = 64 * (0.5 + FACE.middle[1])
    assert changed.sum() > 30
    assert rows.min() > middle
    assert (frames[1].sum(axis=-1) < 150).sum() > (frames[0].sum(axis=-1) < 150).sum() + 15, "a mouth is dark inside"


def test_a_spread_mouth_is_wider() -> None:
    frames = moved(opening=np.array([1.0, 1.0]), width=np.array([-1.0, 1.0]))
    columns = [(frame[40:].sum(axis=-1) < 150).any(axis=0).sum() for frame in frames]
    assert columns[1] >= columns[0] + 3


def test_light_multiplies_colours() -> None:
    plain, red = moved()[0], moved(light=LIGHTS["red"])[0]
    assert np.abs(red - plain * np.array(LIGHTS["red"])).max() <= 1


def test_moods_differ() -> None:
    happy, sad = moved(mood=1.0)[0], moved(mood=-1.0)[0]
    assert np.abs(happy - sad).max() > 60


def test_faces_differ_and_a_seed_gives_one_face() -> None:
    assert Face.drawn_by(np.random.default_rng(3)) == FACE
    assert Face.drawn_by(np.random.default_rng(4)) != FACE


def test_mouths_open_to_sound_and_rest_in_silence() -> None:
    wave = np.zeros(16_000, dtype=np.float32)
    wave[6_400:9_600] = 0.3 * np.sin(2 * np.pi * 300 / 16_000 * np.arange(3_200))
    opening, width = mouth(wave)
    assert opening.shape == width.shape == (25,)
    assert opening[11:14].min() > 0.9
    assert opening[:9].max() == opening[17:].max() == 0


@pytest.mark.parametrize(("hertz", "rounded"), [(300, True), (3_000, False)])
def test_deep_sounds_round_the_lips(hertz: int, rounded: bool) -> None:
    wave = np.sin(2 * np.pi * hertz / 16_000 * np.arange(16_000)).astype(np.float32)
    assert (mouth(wave)[1].mean() < 0) == rounded
