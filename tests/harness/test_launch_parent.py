"""What becomes of ranks when their parent is interrupted or dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import IMPORT_PATH, at_rest, await_count
from waiting import PATIENCE, wait_until

PARENT = """
import sys
from pathlib import Path
from launch_targets import Given
from suites.harness.processes.link import Done
from suites.harness.processes.fork_client import shared_fork_client
from suites.harness.processes.rank_group import Job, RankGroup

mishap, folder = sys.argv[1:]
job = Job(target="launch_targets:mishap", world_size=3, given=Given(mishaps=dict.fromkeys("012", mishap)), preload=())
with RankGroup.start(job, Path(folder)) as group:
    group.command("load", answer=Done)
    print(shared_fork_client(()).pid, flush=True)
    group.command("clip", answer=Done)
"""
RANKS = 3


Parent = tuple[subprocess.Popen, int]
"""A process, and the session of its ranks."""


@pytest.fixture(params=["sleep", "deaf", "native", "freeze"])
def parent(request: pytest.FixtureRequest, tmp_path: Path, interruptible: None) -> Iterator[Parent]:
    """Whose ranks do not answer, each kind more stubborn."""
    env = os.environ | {"PYTHONPATH": IMPORT_PATH}
    command = [sys.executable, "-c", PARENT, request.param, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        session = int(process.stdout.readline())
        wait_until(lambda: at_rest(session, tmp_path, "there", RANKS))
        yield process, session
        process.kill()


def test_killed_parent_leaves_no_process(parent: Parent):
    process, session = parent
    process.kill()
    await_count(session, at_most=0)


@pytest.mark.parametrize("parent", ["sleep", "deaf", "freeze"], indirect=True)
def test_killed_parent_and_server_leave_no_process(parent: Parent):
    process, session = parent
    os.kill(session, signal.SIGKILL)
    process.kill()
    await_count(session, at_most=0)


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_parent_leaves_no_process(parent: Parent, times: int):
    """However soon the second Ctrl-C comes after the first."""
    process, session = parent
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.wait(timeout=PATIENCE) == -signal.SIGINT
    assert "KeyboardInterrupt" in process.stderr.read()
    await_count(session, at_most=0)


def test_terminated_parent_leaves_no_process(parent: Parent):
    process, session = parent
    process.terminate()
    await_count(session, at_most=0)
