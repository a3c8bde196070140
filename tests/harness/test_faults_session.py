"""What becomes of a session of pytest when the machine around it breaks, and of the runs that were done by then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from canned import passed
from fault_targets import HAPPENED
from lab import Lab, said
from ordinary_user import folder_of_somebody_else
from processes import IMPORT_PATH
from waiting import PATIENCE, wait_until

from liveavatar_core.errors import BadData
from liveavatar_core.files import write_atomically
from suites.harness.pytest_plugin.report_claim import claim_report
from suites.harness.pytest_plugin.session import check_folder
from suites.harness.records.record import read_record
from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

pytest_plugins = ["pytester"]
MARK = "LIVEAVATAR_TEST_SESSION"

CONFTEST = """
import sys, types
from functools import partial
from fault_targets import smallest
from suites.harness.hardware.miniature import MiniatureMode

pytest_plugins = ["suites.harness.pytest_plugin.plugin"]
sys.modules["suites.harness.hardware.miniature"] = types.SimpleNamespace(
    MiniatureMode=partial(MiniatureMode, target="fault_targets:run", shrink=smallest)
)
"""
TIERS = """
[pair]
title = "two cards"
cards = 2
card = "RTX 4090"
[pair.cases.first]
recipe = "published_sharded"
miniature_capacity_mib = 64
expect = { outcome = "pass", because = "a model of this size fits anywhere" }
"""
TEST = """
import os, pytest
pytestmark = pytest.mark.pair

def test_first(tier):
    tier.check("first")

def test_second(tier):
    os.environ["LIVEAVATAR_FAULT"] = "sigstop 1 denoise"
    tier.check("first")
"""


def members(mark: str) -> list[int]:
    """Every process that was started with `mark` in its environment, and theirs; zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
            if alive and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.fixture
def interrupted(tmp_path: Path, interruptible: None):
    """A session whose second run hangs, at that point; its folder and the mark of its processes."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "tiers.toml").write_text(TIERS)
    (tmp_path / "test_pair.py").write_text(TEST)
    mark = uuid.uuid4().hex
    env = os.environ | {"PYTHONPATH": IMPORT_PATH, MARK: mark, "OMP_NUM_THREADS": "1"}
    options = ["--hardware=miniature", "--tiers=tiers.toml", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", "--rootdir=.", *options]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as session:
        happened = lambda: list(tmp_path.glob(f"report/runs/*/{HAPPENED}"))  # noqa: E731
        wait_until(lambda: happened() or session.poll() is not None)
        assert happened(), session.stdout.read()
        yield session, tmp_path, mark
        session.kill()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_all_and_keeps_the_runs_before_it(interrupted, times: int):
    session, folder, mark = interrupted
    kept = read_record(folder / "report/records/pair.first.miniature.json")
    assert len(members(mark)) == 4, "pytest, the fork server and two ranks"
    begun = time.monotonic()
    for _ in range(times):
        session.send_signal(signal.SIGINT)
        time.sleep(0.1)
    session.communicate(timeout=PATIENCE)
    wait_until(lambda: not members(mark), lambda: members(mark))
    print(f"{times} x Ctrl-C: all ended after {time.monotonic() - begun:.1f} s")
    assert kept.outcome == "pass"
    assert read_record(folder / "report/records/pair.first.miniature.json") == kept


FULL_DISK = """
import resource
from suites.harness.hardware import simulated as healthy

class Mode(healthy.SimulatedMode):
    def run(self, *given):
        record = super().run(*given)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return record

sys.modules["suites.harness.hardware.simulated"] = types.SimpleNamespace(SimulatedMode=Mode)
"""


def test_a_full_disk_under_the_record_is_the_machines_fault(lab: Lab):
    """The kernel lets no file grow beyond 64 bytes once the run is over."""
    lab.put(passed())
    with (lab.folder / "conftest.py").open("a") as file:
        file.write(FULL_DISK)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--capture=no"]
    result = subprocess.run(command, cwd=lab.folder, capture_output=True, text=True, check=False)
    assert result.returncode == EXIT_CODES[Verdict.INFRASTRUCTURE], result.stdout + result.stderr
    assert "cannot be written" in result.stdout
    assert not list(lab.folder.glob("report/records/*"))
    row = next(line for line in result.stdout.splitlines() if line.startswith("gpu5x24 simulated"))
    assert "20.0, 19.0" in row, "what was measured is still told"


@pytest.mark.parametrize("name", ["records", "runs"])
def test_an_impossible_folder_under_the_report_is_the_machines_fault(lab: Lab, name: str):
    """A file stands where the folder would be: nobody can write there, not even root."""
    lab.put(passed())
    (lab.folder / "report").mkdir()
    (lab.folder / "report" / name).write_text("")
    result = lab.run()
    assert result.ret == EXIT_CODES[Verdict.INFRASTRUCTURE]
    assert "infrastructure: " in said(result)
    assert "Traceback" not in said(result)
    assert ("20.0, 19.0" in said(result)) is (name == "records"), "what was measured is still told"


def test_two_sessions_do_not_share_a_report_folder(lab: Lab):
    lab.put(passed())
    assert lab.run_apart().ret == 0
    kept = lab.folder / "report/records/gpu5x24.published_sharded.simulated.json"
    before = kept.read_bytes(), kept.stat().st_mtime_ns
    with claim_report.__wrapped__(lab.folder / "report", "another"):
        result = lab.run_apart()
        assert result.ret == EXIT_CODES[Verdict.INFRASTRUCTURE]
        assert "another session writes to" in said(result)
        assert "next: " in said(result)
        assert (kept.read_bytes(), kept.stat().st_mtime_ns) == before
        assert lab.run_apart("--report-dir", "elsewhere").ret == 0
    assert lab.run_apart("-n", "2").ret == 0, "workers are one session"


def test_a_read_only_report_folder_ends_the_session_before_anything_runs():
    with folder_of_somebody_else() as folder, pytest.raises(BadData, match="no folder can be written there"):
        check_folder(folder / "report", "--report-dir")


SMALL_SHM = "mount -t tmpfs -o size=4k none /dev/shm && exec {python} {script}"
SCRIPT = """
import sys, tempfile
sys.path[:0] = {paths!r}
from pathlib import Path
from fault_targets import smallest
from suites.harness.cases.tiers import Case, Expectation, Tier
from suites.harness.hardware.miniature import MiniatureMode

if __name__ == "__main__":
    expect = Expectation(outcome="pass", because="b")
    case = Case(name="pair", recipe="published_sharded", expect=expect, miniature_capacity_mib=64)
    tier = Tier(name="pair", title="t", cards=2, card="RTX 4090", cases=(case,))
    record = MiniatureMode(shrink=smallest).run(tier, case, Path(tempfile.mkdtemp()))
    print(record.outcome, record.failure)
"""


def test_a_full_dev_shm_is_in_nobodys_way(tmp_path: Path):
    """Ranks talk over loopback: shared memory of 4 KiB, in a mount namespace of its own, is enough."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a mount namespace")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(paths=IMPORT_PATH.split(os.pathsep)))
    command = SMALL_SHM.format(python=sys.executable, script=script)
    done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "pass None\n", done.stderr


def test_baselines_that_cannot_be_written_are_said_in_two_lines(lab: Lab):
    """A file stands where the machine's folder would be: nobody can write there, not even root."""
    lab.put(passed())
    (lab.folder / "baselines/simulated-rtx4090x5").write_text("")
    result = lab.run("--baseline-update")
    assert result.ret == 2
    assert "next: choose a folder that can be written" in said(result)
    assert read_record(lab.folder / "report/records/gpu5x24.published_sharded.simulated.json") == passed()


def test_a_read_only_baseline_folder_is_said_in_two_lines():
    """Root may write anywhere, so it puts its rights down for a moment."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(BadData, match="cannot be written") as error:
                write_atomically(folder / "simulated-rtx4090x5" / "gpu5x24.toml", "")
        finally:
            os.seteuid(user)
    assert str(error.value).count("\n") == 1
