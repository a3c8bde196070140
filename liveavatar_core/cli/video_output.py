"""Frames into a file as they come. What was made until a signal is kept; what an error cut off is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from liveavatar_core.cli.stop_signals import Stopped, StopSignals


class FrameWriter(Protocol):
    """Something that takes frames in order."""

    def write(self, frames_NHW3: np.ndarray, /) -> None:
        """Append frames, uint8 [N, H, W, 3]."""
        ...


OpenWriter = Callable[[int, int], AbstractContextManager[FrameWriter]]
"""Opens the file for frames of a height and width; leaving it without an error makes it whole."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What came of it."""

    frames: int
    """Frames in the file; 0 if there is no file."""
    height: int
    """Pixels of a side of a frame."""
    width: int
    """Pixels of a side of a frame."""
    stopped: Stopped | None
    """The signal that ended it early."""


def record(
    blocks: Iterable[np.ndarray | None],
    open_writer: OpenWriter,
    advance: Callable[[], None],
    signals: StopSignals,
) -> Recorded:
    """Write every block, uint8 [N, H, W, 3]; None is a block that another rank writes.

    The file is opened by the first frames, so a rank without any leaves no file.
    """
    writer, frames, size, stopped = None, 0, (0, 0), None
    with ExitStack() as stack:
        try:
            for block in blocks:
                with signals.held():
                    if block is not None:
                        size = block.shape[1], block.shape[2]
                        writer = writer or _open(stack, open_writer, size, signals)
                        writer.write(block)
                        frames += len(block)
                    advance()
        except Stopped as reason:
            stopped = reason
    return Recorded(frames=frames, height=size[0], width=size[1], stopped=stopped)


def _open(stack: ExitStack, open_writer: OpenWriter, size: tuple[int, int], signals: StopSignals) -> FrameWriter:
    writer = stack.enter_context(open_writer(*size))
    stack.callback(signals.hold)  # runs before the writer closes: closing is not interrupted
    return writer
