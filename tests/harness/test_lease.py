"""Cards are lent to one run at a time: real processes, real locks, cards of a stand-in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvml_stand_in import GIB, StandInNvml
from processes import session_of

from liveavatar_core.nvml import CardProcess, read_driver
from suites.harness.lease import CardsUnavailable, describe, leased

HOLDER = """
import sys, time
from pathlib import Path
from nvml_stand_in import StandInNvml
from liveavatar_core.nvml import read_driver
from suites.harness.lease import leased

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
cards = read_driver(StandInNvml(*["NVIDIA H200"] * 8), {}).cards
with leased(cards, 4, read=lambda: cards, folder=folder, wait_seconds=60) as mine:
    begun = time.monotonic()
    print("holding", flush=True)
    time.sleep(seconds)
    print(begun, time.monotonic(), *(card.uuid for card in mine), flush=True)
"""


def start_holder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path.cwd()), str(Path(__file__).parent)])
    command = [sys.executable, "-c", HOLDER, str(folder), str(seconds)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)


def cards(count: int = 2):
    return read_driver(StandInNvml(*["NVIDIA H200"] * count), {}).cards


def test_runs_on_four_cards_share_a_machine_of_eight_two_at_a_time(tmp_path: Path):
    holders = [start_holder(tmp_path, 1.0) for _ in range(4)]
    runs = []
    for holder in holders:
        begun, ended, *uuids = holder.communicate(timeout=60)[0].splitlines()[-1].split()
        assert len(set(uuids)) == 4
        runs.append((float(begun), float(ended), set(uuids)))
    at_once = [sum(begun <= moment < ended for begun, ended, _ in runs) for moment, _, _ in runs]
    assert max(at_once) == 2
    for first in runs:
        for second in runs:
            if first is not second and first[0] < second[1] and second[0] < first[1]:
                assert not first[2] & second[2], "two runs held the same card at the same time"


def test_cards_of_a_killed_run_are_free_again(tmp_path: Path):
    holder = start_holder(tmp_path, 60)
    assert holder.stdout.readline() == "holding\n"
    with (
        pytest.raises(CardsUnavailable, match=r"8 cards are needed; other runs held 4 of 8"),
        leased(cards(8), 8, read=lambda: cards(8), folder=tmp_path, wait_seconds=0.3),
    ):
        pass
    holder.kill()
    holder.wait()
    with leased(cards(8), 8, read=lambda: cards(8), folder=tmp_path, wait_seconds=5) as mine:
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
    with leased(read(), 2, read=read, folder=tmp_path, wait_seconds=0.3) as mine:
        assert len(mine) == 2


def test_a_rank_without_its_server_is_named_as_left_behind(tmp_path: Path):
    """A process that looks like a rank and has outlived the leader of its session."""
    script = "import os, time, sys; print(os.getpid(), flush=True); os.fork() and os._exit(0); time.sleep(60)"
    command = [sys.executable, "-c", script, "suites.harness.rank_server"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True) as leader:
        session = int(leader.stdout.readline())
        leader.wait()
        [orphan] = session_of(session)
        text = describe(CardProcess(pid=orphan, name="python3", used_bytes=2 * GIB))
        os.kill(orphan, 0)  # named, and left alone
        os.kill(orphan, signal.SIGKILL)
    assert text == f"process {orphan} (python3) holds 2.00 GiB, left behind by an earlier run of this suite"
