"""Draws head.png: a head of the kind that the tiny avatar was trained on, but not one of those.

Run: python assets/draw_head.py [FILE]. Needs numpy and Pillow only; the same numpy draws the same picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tiny_avatar.heads import Face, Motion, draw

SEED, PIXELS = 511, 512


def head() -> Image.Image:
    """A face at rest."""
    return Image.fromarray(draw(Face.drawn_by(np.random.default_rng(SEED)), Motion.still(1), PIXELS)[0])


if __name__ == "__main__":
    head().save(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("head.png"))
