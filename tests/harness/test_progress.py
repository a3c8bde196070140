"""What a person sees while tests run: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from canned import passed, ran_out
from lab import said
from waiting import PATIENCE

from liveavatar_core.simulation.voice_limit import VoiceLimit
from liveavatar_core.workload import MANY_CLIPS
from suites.harness.pytest_plugin.progress import bars
from suites.harness.pytest_plugin.session import Result
from suites.harness.records.measurements import Timing
from suites.harness.records.record import DeclaredRecipe
from suites.harness.report.terminal import render
from suites.harness.verdicts.judge import Judgement
from suites.harness.verdicts.verdict import Verdict

pytest_plugins = ["pytester"]
COUNTS = {"gpu4x24": (1, 2), "gpu5x24": (0, 3)}
DOING = "published_sharded on 4 x RTX 4090, miniature, clip 2 of 4"


def test_each_tier_has_a_bar_and_the_running_one_says_what_it_does():
    first, second = bars(COUNTS, "gpu4x24", DOING, 12.3, 120)
    assert first == f"gpu4x24 {'━' * 10}{'╌' * 10} 1/2  12 s  {DOING}"
    assert second == f"gpu5x24 {'╌' * 20} 0/3"


@pytest.mark.parametrize("width", [20, 45, 60, 80, 200])
def test_a_narrow_terminal_has_no_line_that_wraps(width: int):
    lines = bars(COUNTS, "gpu4x24", DOING, 12.3, width)
    assert max(map(len, lines)) < width
    assert ("━" in lines[0]) == (width >= 50)
    assert "1/2" in lines[0]


def test_elsewhere_than_on_a_terminal_a_line_says_what_begins(lab):
    lab.put(passed())
    text = said(lab.run())
    assert re.search(r"\ngpu5x24 1/1: test_case\[auto-published_sharded\] \. +\[100%\]\n", text)
    assert "\x1b" not in text
    assert "gpu5x24 1/1" not in said(lab.run("-q"))


DRAWN_MEANWHILE = f"""
import threading
from suites.harness.pytest_plugin import progress

drawn = threading.Semaphore(0)
write = progress.LiveLines._write
def told(lines, text):
    write(lines, text)
    drawn.release()
progress.LiveLines._write = told

quick = sys.modules["suites.harness.hardware.simulated"].SimulatedMode
class Watched(quick):
    def run(self, *given):
        while drawn.acquire(blocking=False):
            pass
        for _ in range(2):  # the first may have been begun before
            assert drawn.acquire(timeout={PATIENCE})
        return super().run(*given)
sys.modules["suites.harness.hardware.simulated"].SimulatedMode = Watched
"""
"""A run that lasts until lines were drawn while it ran."""


def on_a_terminal(lab, *options: str) -> str:
    """What a session writes to a terminal of 80 columns."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    env = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(command, cwd=lab.folder, stdout=child, stderr=child, env=env):
        os.close(child)
        chunks = []
        try:
            while chunk := os.read(parent, 65536):
                chunks.append(chunk)
        except OSError:  # what Linux says at the end
            pass
    os.close(parent)
    return b"".join(chunks).decode()


def test_on_a_terminal_bars_come_below_and_are_gone_before_pytest_writes(lab):
    lab.put(passed())
    assert "\x1b7" not in on_a_terminal(lab, "-s"), "tests that print themselves are left alone"
    with (lab.folder / "conftest.py").open("a") as file:
        file.write(DRAWN_MEANWHILE)
    text = on_a_terminal(lab)
    drawn = re.findall(r"\x1b7\x1b\[1B\r\x1b\[K([^\x1b]*)\x1b8", text)
    assert drawn
    assert all(line.startswith(f"gpu5x24 {'╌' * 10} 0/1  ") for line in drawn)
    assert any("published_sharded on 5 x RTX 4090, simulated" in line for line in drawn)
    after = text[text.rindex("\x1b8") :]
    assert after.startswith("\x1b8\x1b[J"), "cleared"
    assert "1 passed" in after


def test_there_is_one_table_unless_that_of_pytest_benchmark_is_asked_for(lab):
    """Rounds are still taken, for its own files; it prints them with -v, or to compare."""
    (lab.folder / "test_timed.py").write_text("def test_timed(benchmark):\n    benchmark.pedantic(lambda: None)\n")
    lab.put(passed())
    quiet, verbose = said(lab.run_apart()), said(lab.run_apart("-v"))
    assert ("Rounds" in quiet, "Rounds" in verbose) == (False, True)


@pytest.mark.parametrize("width", [30, 45, 59])
def test_a_narrow_terminal_has_a_list_in_place_of_the_table(width: int):
    judgement = Judgement(verdict=Verdict.PASS)
    lines = render([Result(record=each, judgement=judgement) for each in (passed(), ran_out())], (), width=width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert "gpu4x24 simulated published_sharded oom encode peak 20.0, 19.0 limit, room 22.15 GiB -3.26" in text
    assert "gpu5x24 simulated published_sharded pass peak" in text
    assert text.count("baseline pass") == 2


@pytest.mark.parametrize(("width", "shown"), [(80, False), (120, True)])
def test_a_wide_terminal_has_frames_a_second_and_the_real_time_factor(width: int, shown: bool):
    """48 frames last 1.92 s at 25 a second."""
    judgement = Judgement(verdict=Verdict.PASS)
    declared = DeclaredRecipe(name="x", hash="00000000", declared={"clip": {"infer_frames": 48}})
    record = replace(passed(), recipe=declared, timing=Timing(clip_seconds=(19.2,), comparable=True))
    text = "\n".join(render([Result(record=record, judgement=judgement)], (), width=width))
    assert [each in text.split() for each in ("19.20", "2.50", "10.0")] == [True, shown, shown]


@pytest.mark.parametrize(("clips", "shown"), [(417, True), (MANY_CLIPS, False)])
def test_the_table_says_how_long_the_voice_may_be_where_it_is_not_any(clips: int, shown: bool):
    limit = VoiceLimit(clips=clips, seconds=clips * 1.92, why="" if clips == MANY_CLIPS else "rank 0, encode: full")
    record = replace(passed(), longest_voice=limit)
    text = "\n".join(render([Result(record=record, judgement=Judgement(verdict=Verdict.PASS))], (), width=80))
    assert ("voice to 801 s" in text) == shown
