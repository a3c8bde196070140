"""The video while it is written: a signal, or an error, leaves a whole file or none."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from command_line import decoded, interrupts

from liveavatar_core.cli.stop_signals import Stopped, StopSignals
from liveavatar_core.cli.video_output import record
from liveavatar_core.errors import MemoryShortage, OutOfMemory


def frames(count: int, value: int) -> np.ndarray:
    return np.full((count, 64, 64, 3), value, np.uint8)


def open_writer_at(path: Path):
    from liveavatar_core.media import VideoWriter

    voice = 0.1 * np.ones(32_000, np.float32)
    return lambda height, width: VideoWriter(path, height, width, audio=voice)


@interrupts
def test_a_signal_while_frames_are_made_keeps_those_that_were(tmp_path):
    def blocks():
        yield frames(12, 50)
        yield frames(12, 90)
        os.kill(os.getpid(), signal.SIGTERM)
        yield frames(12, 130)

    with StopSignals() as signals:
        recorded = record(blocks(), open_writer_at(tmp_path / "out.mp4"), lambda: None, signals)
    assert (recorded.frames, recorded.stopped.exit_code) == (24, 143)
    assert decoded(tmp_path / "out.mp4") == 24
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


class Impatient:
    """A writer whose user presses Ctrl-C while it works."""

    def __init__(self, writer, *, at: str) -> None:
        self.writer, self.at = writer, at

    def __enter__(self):
        self.writer.__enter__()
        return self

    def write(self, block):
        self.interrupt("write")
        self.writer.write(block)

    def __exit__(self, *error):
        self.interrupt("close")
        return self.writer.__exit__(*error)

    def interrupt(self, now: str) -> None:
        if now == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@interrupts
@pytest.mark.parametrize(("at", "kept", "code"), [("write", 12, 130), ("close", 24, None)])
def test_a_signal_while_the_file_is_written_waits_until_that_is_done(tmp_path, at, kept, code):
    opened = open_writer_at(tmp_path / "out.mp4")
    blocks = [frames(12, 60), frames(12, 90)]
    with StopSignals() as signals:
        recorded = record(blocks, lambda *size: Impatient(opened(*size), at=at), lambda: None, signals)
    assert recorded.stopped is None if code is None else recorded.stopped.exit_code == code
    assert recorded.frames == decoded(tmp_path / "out.mp4") == kept


def test_an_error_on_the_way_leaves_no_file(tmp_path):
    def blocks():
        yield frames(12, 50)
        sizes = {"requested": 2**30, "free": 2**20, "capacity": 2**34}
        raise OutOfMemory(MemoryShortage(rank=0, phase="denoise", category="activations", **sizes))

    with StopSignals() as signals, pytest.raises(OutOfMemory):
        record(blocks(), open_writer_at(tmp_path / "out.mp4"), lambda: None, signals)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_without_frames_opens_no_file():
    def never(height, width):
        raise AssertionError("opened")

    with StopSignals() as signals:
        assert record([None, None], never, lambda: None, signals).frames == 0


@interrupts
def test_the_handlers_before_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with StopSignals(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@interrupts
def test_a_signal_that_was_ignored_stops_nothing():
    """As shells have it for what runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
