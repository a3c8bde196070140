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
from processes import await_count

PARENT = """
import sys
from pathlib import Path
from suites.harness.fork_server import shared_fork_server
from suites.harness.launch import Job, RankGroup

mishap, folder = sys.argv[1:]
job = Job(target="launch_targets:mishap", world_size=3, payload=dict.fromkeys(range(3), mishap), preload=())
with RankGroup.start(job, Path(folder)) as group:
    group.command("load")
    print(shared_fork_server(()).pid, flush=True)
    group.command("clip")
"""
PROCESSES = 4
"""The fork server and three ranks."""


@pytest.fixture(params=["sleep", "deaf", "native", "freeze"])
def parent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """A process whose ranks do not answer, each kind more stubborn; and the session of its ranks."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(Path(__file__).parent)])}
    command = [sys.executable, "-c", PARENT, request.param, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        session = int(process.stdout.readline())
        await_count(session, at_least=PROCESSES)
        yield process, session
        process.kill()


def test_killed_parent_leaves_no_process(parent: tuple[subprocess.Popen, int]):
    process, session = parent
    process.kill()
    await_count(session, at_most=0)


@pytest.mark.parametrize("parent", ["sleep", "deaf", "freeze"], indirect=True)
def test_killed_parent_and_server_leave_no_process(parent: tuple[subprocess.Popen, int]):
    process, session = parent
    os.kill(session, signal.SIGKILL)
    process.kill()
    await_count(session, at_most=0)


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_parent_leaves_no_process(parent: tuple[subprocess.Popen, int], times: int):
    process, session = parent
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.wait(timeout=8) == -signal.SIGINT
    assert "KeyboardInterrupt" in process.stderr.read()
    await_count(session, at_most=0)


def test_terminated_parent_leaves_no_process(parent: tuple[subprocess.Popen, int]):
    process, session = parent
    process.terminate()
    await_count(session, at_most=0)
