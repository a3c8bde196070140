"""Cards are lent to one run at a time: real processes, real locks, cards of a stand-in."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvml_stand_in import GIB, StandInNvml
from processes import IMPORT_PATH, session_of
from waiting import PATIENCE

from liveavatar_core.hardware.nvml import CardProcess, read_driver
from suites.harness.hardware.lease import CardsUnavailable, describe, leased

HOLDER = """
import sys
from pathlib import Path
from nvml_stand_in import StandInNvml
from liveavatar_core.hardware.nvml import read_driver
from suites.harness.hardware.lease import leased

folder = Path(sys.argv[1])
cards = read_driver(StandInNvml(*["NVIDIA H200"] * 8), {}).cards
with leased(cards, 4, read=lambda: cards, folder=folder) as mine:
    print(*(card.uuid for card in mine), flush=True)
    sys.stdin.readline()
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    """It says which cards it holds once it does, and holds them until it is sent a line."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    env = os.environ | {"PYTHONPATH": IMPORT_PATH}
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def next_to_hold(waiting: list[subprocess.Popen[str]]) -> tuple[subprocess.Popen[str], set[str]]:
    """Takes the first of those that wait to hold cards out of the list; and its cards."""
    ready, _, _ = select.select([holder.stdout for holder in waiting], [], [], PATIENCE)
    holder = next(holder for holder in waiting if holder.stdout in ready)
    waiting.remove(holder)
    return holder, set(holder.stdout.readline().split())


def cards(count: int = 2):
    return read_driver(StandInNvml(*["NVIDIA H200"] * count), {}).cards


def test_runs_on_four_cards_share_a_machine_of_eight_two_at_a_time(tmp_path: Path):
    """Two hold all eight at once; each that waits gets the very cards that one of them gives back."""
    waiting = [start_holder(tmp_path) for _ in range(4)]
    (first, of_first), (second, of_second) = next_to_hold(waiting), next_to_hold(waiting)
    assert (len(of_first), len(of_second), len(of_first | of_second)) == (4, 4, 8)
    first.communicate("\n", timeout=PATIENCE)
    third, of_third = next_to_hold(waiting)
    assert of_third == of_first
    second.communicate("\n", timeout=PATIENCE)
    fourth, of_fourth = next_to_hold(waiting)
    assert of_fourth == of_second
    for holder in (third, fourth):
        holder.communicate("\n", timeout=PATIENCE)


def test_cards_of_a_killed_run_are_free_again(tmp_path: Path):
    holder = start_holder(tmp_path)
    next_to_hold([holder])
    with (
        pytest.raises(CardsUnavailable, match=r"8 cards are needed; other runs held 4 of 8"),
        leased(cards(8), 8, read=lambda: cards(8), folder=tmp_path, wait_seconds=0.3),
    ):
        pass
    holder.kill()
    holder.communicate()
    with leased(cards(8), 8, read=lambda: cards(8), folder=tmp_path, wait_seconds=0) as mine:
        assert len(mine) == 8


def test_a_busy_card_is_refused_and_its_lock_given_back(tmp_path: Path):
    library = StandInNvml("NVIDIA H200", "NVIDIA H200")
    library.cards[1].processes = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)]
    read = lambda: read_driver(library, {}).cards  # noqa: E731
    with pytest.raises(CardsUnavailable) as error, leased(read(), 2, read=read, folder=tmp_path):
        pass
    assert f"card 1 (NVIDIA H200, GPU-0001) is busy: process {os.getpid()} (python3)" in error.value.what
    assert "left behind" not in error.value.what
    library.cards[1].processes = []
    with leased(read(), 2, read=read, folder=tmp_path, wait_seconds=0) as mine:
        assert len(mine) == 2


def test_a_rank_without_its_server_is_named_as_left_behind(tmp_path: Path):
    """A process that looks like a rank and has outlived the leader of its session."""
    script = "import os, signal; print(os.getpid(), flush=True); os.fork() and os._exit(0); signal.pause()"
    command = [sys.executable, "-c", script, "suites.harness.processes.fork_server"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True) as leader:
        session = int(leader.stdout.readline())
        leader.wait()
        [orphan] = session_of(session)
        text = describe(CardProcess(pid=orphan, name="python3", used_bytes=2 * GIB))
        os.kill(orphan, 0)  # named, and left alone
        os.kill(orphan, signal.SIGKILL)
    assert text == f"process {orphan} (python3) holds 2.00 GiB, left behind by an earlier run of this suite"
