"""Talking heads that the project draws itself: faces of all kinds, and how they move. Free of torch.

Coordinates are in units of the picture's height, x to the right and y down, the middle at 0. Every shape is a signed
distance turned into a soft mask, so that one numpy expression draws all frames of a video.

Legend: J frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np

Colour = tuple[float, float, float]
Length = np.ndarray | float

_INNER_MOUTH, _TEETH, _WHITE, _PUPIL = (70, 18, 26), (238, 232, 222), (246, 244, 240), (20, 18, 20)
LIGHTS: dict[str, Colour] = {
    "white": (1.0, 1.0, 1.0),
    "red": (1.0, 0.55, 0.5),
    "green": (0.55, 1.0, 0.6),
    "blue": (0.5, 0.65, 1.0),
    "golden": (1.0, 0.86, 0.45),
}
"""Factors of a light's colour for red, green and blue, by the light's name."""
MOODS = {"neutral": 0.0, "happy": 1.0, "sad": -1.0}
"""How far the corners of the mouth, and the brows, go up."""


@dataclass(frozen=True, kw_only=True)
class Face:
    """The looks of a person: everything that a portrait shows and a video keeps."""

    skin: Colour
    """Colour of the skin; channels of all colours are 0..255."""
    hair: Colour
    """Colour of hair and brows."""
    iris: Colour
    """Colour of the eyes."""
    lips: Colour
    """Colour of the closed mouth."""
    shirt: Colour
    """Colour of the clothes."""
    wall: tuple[Colour, Colour]
    """Colours of the background, left and right."""
    middle: tuple[float, float]
    """Where the middle of the face is, seen from the picture's, in units of its height."""
    radii: tuple[float, float]
    """Half the face's width and height, in units of the picture's height."""
    hair_length: float
    """How long the hair is: 0 cropped, 1 over the shoulders."""
    eye_spacing: float
    """Distance from the middle to an eye, as a share of the face's half width."""
    eye_size: float
    """Half the width of an eye, as a share of the face's half width."""
    mouth_width: float
    """Half the width of the mouth at rest, as a share of the face's half width."""
    mouth_height: float
    """How far below the middle the mouth is, as a share of the face's half height."""

    @classmethod
    def drawn_by(cls, random: np.random.Generator) -> Self:
        """A face of chance, drawn with `random`."""
        uniform = random.uniform
        skin = np.array([244, 206, 176]) * uniform(0.42, 1.04) * uniform(0.95, 1.05, 3)
        hairs = [(66, 42, 32), (24, 20, 22), (150, 96, 48), (216, 182, 112), (140, 50, 30), (150, 150, 150)]
        irises = [(98, 122, 94), (92, 62, 40), (84, 128, 168), (60, 44, 34)]
        return cls(
            skin=_colour(skin.clip(0, 255)),
            hair=_colour(np.array(hairs[random.integers(6)]) * uniform(0.8, 1.2)),
            iris=irises[random.integers(4)],
            lips=_colour(skin * (0.85, 0.55, 0.58)),
            shirt=_colour(uniform(20, 235, 3)),
            wall=(_colour(wall := uniform(40, 240, 3)), _colour(wall * uniform(0.55, 1.1))),
            middle=(uniform(-0.06, 0.06), uniform(-0.09, 0.05)),
            radii=(uniform(0.19, 0.25), uniform(0.27, 0.34)),
            hair_length=float(random.choice([uniform(0, 0.2), uniform(0.4, 1.0)])),
            eye_spacing=uniform(0.42, 0.54),
            eye_size=uniform(0.19, 0.28),
            mouth_width=uniform(0.36, 0.48),
            mouth_height=uniform(0.5, 0.62),
        )


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How a face moves: one value a frame in every array [J]."""

    opening: np.ndarray
    """How far the mouth is open; 0 closed, 1 wide open."""
    width: np.ndarray
    """How wide the mouth is; -1 rounded, 1 spread."""
    sway: np.ndarray
    """How far the head stands sideways, in units of the picture's height."""
    nod: np.ndarray
    """How far the head stands downwards, in units of the picture's height."""
    mood: float = 0.0
    """The mood of the face; -1 sad, 1 happy."""
    light: Colour = LIGHTS["white"]
    """Factors of the light's colour for red, green and blue."""

    @classmethod
    def still(cls, frames: int) -> Self:
        """The motion of a portrait: nothing moves."""
        rest = np.zeros(frames)
        return cls(opening=rest, width=rest, sway=rest, nod=rest)


def draw(face: Face, motion: Motion, size: int = 64) -> np.ndarray:
    """The video, uint8 [J, size, size, 3]."""
    canvas = _Canvas(len(motion.opening), size)
    canvas.fill_wall(face.wall)
    x, y = face.middle[0] + _column(motion.sway), face.middle[1] + _column(motion.nod)
    _draw_behind(canvas, face, x, y)
    _draw_head(canvas, face, motion, x, y)
    _draw_eyes(canvas, face, motion, x, y)
    _draw_mouth(canvas, face, motion, x, y)
    return (canvas.pixels * motion.light).clip(0, 255).round().astype(np.uint8)


class _Canvas:
    """Frames under work; masks are 1 inside a shape, softened over about one pixel."""

    def __init__(self, frames: int, size: int) -> None:
        grid = (np.arange(size) + 0.5) / size - 0.5
        self.x, self.y = grid[None, None, :], grid[None, :, None]
        self.softness = 1.0 / size
        self.pixels = np.zeros((frames, size, size, 3), dtype=np.float32)

    def fill_wall(self, wall: tuple[Colour, Colour]) -> None:
        """A background that goes over from one colour to the other."""
        share = (self.x + 0.5)[..., None]
        self.pixels += np.array(wall[0]) * (1 - share) + np.array(wall[1]) * share

    def paint(self, distance: np.ndarray, colour: Colour, softness: float = 1.0) -> None:
        """Lay a colour where `distance` (units of height) is below 0."""
        cover = (0.5 - distance / (self.softness * softness)).clip(0, 1)[..., None]
        self.pixels += cover * (np.array(colour) - self.pixels)

    def ellipse(self, x: Length, y: Length, rx: Length, ry: Length) -> np.ndarray:
        """Distance to an ellipse, near enough at its edge."""
        across, along = (self.x - x) / rx, (self.y - y) / ry
        return (np.sqrt(across**2 + along**2) - 1) * np.minimum(rx, ry)


def _draw_behind(canvas: _Canvas, face: Face, x: np.ndarray, y: np.ndarray) -> None:
    """Long hair, shoulders and neck."""
    rx, ry = face.radii
    if face.hair_length > 0.3:
        drop = ry * (0.3 + 0.7 * face.hair_length)
        canvas.paint(canvas.ellipse(x, y + drop * 0.4, rx * 1.35, ry + drop * 0.5), face.hair)
    canvas.paint(canvas.ellipse(x * 0.3 + face.middle[0] * 0.7, 0.62, 0.46, 0.26), face.shirt)
    shade = _colour(np.array(face.skin) * 0.8)
    canvas.paint(canvas.ellipse(x, y + ry * 1.05, rx * 0.48, ry * 0.42), shade)


def _draw_head(canvas: _Canvas, face: Face, motion: Motion, x: np.ndarray, y: np.ndarray) -> None:
    """Hair on top, face, nose. The chin follows the mouth."""
    rx, ry = face.radii
    canvas.paint(canvas.ellipse(x, y - ry * 0.14, rx * 1.16, ry * 1.06), face.hair)
    chin = _column(motion.opening) * 0.02
    canvas.paint(canvas.ellipse(x, y + ry * 0.08 + chin / 2, rx, ry * 0.94 + chin / 2), face.skin)
    parting = np.maximum(canvas.ellipse(x, y - ry * 0.1, rx * 1.02, ry * 0.98), canvas.y - (y - ry * 0.52))
    canvas.paint(parting, face.hair)
    canvas.paint(canvas.ellipse(x, y + ry * 0.22, rx * 0.1, ry * 0.1), _colour(np.array(face.skin) * 0.82), 2.0)


def _draw_eyes(canvas: _Canvas, face: Face, motion: Motion, x: np.ndarray, y: np.ndarray) -> None:
    """Eyes and brows, both sides."""
    rx, ry = face.radii
    size, brow_lift = rx * face.eye_size, 0.012 * motion.mood
    for side in (-1, 1):
        eye = x + side * rx * face.eye_spacing
        canvas.paint(canvas.ellipse(eye, y - ry * 0.1, size, size * 0.62), _WHITE)
        canvas.paint(canvas.ellipse(eye, y - ry * 0.1, size * 0.52, size * 0.6), face.iris)
        canvas.paint(canvas.ellipse(eye, y - ry * 0.1, size * 0.26, size * 0.3), _PUPIL)
        slope = 0.3 * max(-motion.mood, 0.0) * side * (canvas.x - eye)
        brow = y - ry * 0.36 - brow_lift + slope
        canvas.paint(canvas.ellipse(eye, brow, size * 1.25, size * 0.24), face.hair)


def _draw_mouth(canvas: _Canvas, face: Face, motion: Motion, x: np.ndarray, y: np.ndarray) -> None:
    """Lips around what is open between them."""
    rx, ry = face.radii
    opening = _column(motion.opening)
    half = rx * face.mouth_width * (1 + 0.22 * _column(motion.width) + 0.1 * motion.mood)
    place = ((canvas.x - x) / half).clip(-1.3, 1.3)
    middle = y + ry * face.mouth_height - 0.03 * motion.mood * (place**2 - 0.4)
    bow = np.sqrt((1 - place**2).clip(0, None))
    upper, lower = middle - 0.018 * opening * bow, middle + 0.085 * opening * bow
    lip = 0.016 * (0.35 + 0.65 * bow)
    sides = np.abs(canvas.x - x) - half
    canvas.paint(_inside_all(upper - lip - canvas.y, canvas.y - lower - lip, sides), face.lips)
    inside = _inside_all(upper - canvas.y, canvas.y - lower, sides + 0.01)
    canvas.paint(inside, _INNER_MOUTH)
    canvas.paint(np.maximum(inside, canvas.y - upper - 0.02 * opening), _TEETH)


def _inside_all(*distances: np.ndarray) -> np.ndarray:
    """Distance to what all shapes share."""
    return reduce(np.maximum, distances)


def _column(values: np.ndarray) -> np.ndarray:
    """A value a frame, [J], as a column [J, 1, 1]."""
    return np.asarray(values, dtype=np.float64)[:, None, None]


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (float(value) for value in np.asarray(values).clip(0, 255))
    return red, green, blue
