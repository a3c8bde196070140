"""How far a run is, on a terminal and elsewhere."""

from __future__ import annotations

import re

import pytest

from liveavatar_core.cli.progress_bar import show_progress


@pytest.mark.parametrize("width", [20, 40, 80])
def test_the_bar_keeps_to_a_narrow_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    with show_progress(12, 4) as advance:
        for _ in range(47):
            advance()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    lines = re.split(r"[\r\n]+", text)
    assert any(line.startswith("clip 12/12 ") for line in lines)
    assert max(map(len, lines)) <= width


def test_elsewhere_a_line_a_clip_is_printed(capsys):
    with show_progress(2, 3) as advance:
        for _ in range(6):
            advance()
    assert re.fullmatch(r"clip 1/2: [\d.]+ s\nclip 2/2: [\d.]+ s\n", capsys.readouterr().err)
