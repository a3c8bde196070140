"""A video as pictures, for machines that have no encoder. Free of torch."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from liveavatar_core.errors import CannotWrite
from liveavatar_core.media import FramePixels


def has_encoder() -> bool:
    """Whether an mp4 can be written here: PyAV is installed."""
    return importlib.util.find_spec("av") is not None


class FrameFolder:
    """Writes frames as PNG, `00000.png` and on, as they come; each has its name once it is whole."""

    def __init__(self, folder: Path) -> None:
        """`folder`: is made, unless it is there; pictures of an earlier video in it are removed."""
        self._folder, self.frames = folder, 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures(self._folder):
            picture.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open: each picture is whole by itself."""

    def write(self, frames_NHW3: FramePixels) -> None:
        """Append frames: uint8 [N, H, W, 3], red green blue. Raises CannotWrite where the disk is full."""
        for pixels in np.asarray(frames_NHW3):
            path = self._folder / f"{self.frames:05d}.png"
            partial = path.with_suffix(".part")
            try:
                with partial.open("wb") as file:
                    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
            except OSError as error:
                partial.unlink(missing_ok=True)
                what = f"{path} could not be written after {self.frames} frames: {error.strerror or error}"
                raise CannotWrite(what, "free space there") from error
            self.frames += 1


def pictures(folder: Path) -> list[Path]:
    """The frames of the video in a folder, in order."""
    return sorted(folder.glob("[0-9]*.png"))
