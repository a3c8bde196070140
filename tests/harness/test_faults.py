"""What becomes of a run when something breaks: real processes of the miniature mode, real signals.

Each fault ends with the right verdict and leaves no process behind. That of a rank that fails comes before the deadline
of its command: after that it would be a hang.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_targets import FAULT, HAPPENED, SLOW_SECONDS, smallest
from processes import await_count, hold_the_clock, states_of
from waiting import PATIENCE

from suites.harness.cases.tiers import Case, Expectation, Tier
from suites.harness.hardware.clip_runs import PRELOAD
from suites.harness.hardware.miniature import MiniatureMode
from suites.harness.processes.fork_client import shared_fork_client
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.verdict import Verdict, judge_outcome

PASS = Expectation(outcome="pass", because="a model of this size fits anywhere")
CASE = Case(name="pair", recipe="published_sharded", expect=PASS, miniature_capacity_mib=64)
PAIR = Tier(name="pair", title="two cards", cards=2, card="RTX 4090", cases=(CASE,))
HANG_SECONDS = 3.0
"""From when one rank is stopped and the other waits until they count as hung. The other may yet go on to where it waits
for good, which is a layer further at most."""


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    if server := shared_fork_client(PRELOAD).pid:
        await_count(server, at_most=1)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str, *, seconds: float = PATIENCE) -> RunRecord:
    """The record of a run with `fault`. `seconds`: what a command may take."""
    monkeypatch.setenv(FAULT, fault)
    record = MiniatureMode(target="fault_targets:run", shrink=smallest, command_seconds=seconds).run(PAIR, CASE, folder)
    taken = time.monotonic() - float((folder / HAPPENED).read_text())
    print(f"{fault}: {record.outcome} {taken:.1f} s after the fault")
    assert RunRecord.from_json(record.to_json()) == record
    return record


@pytest.mark.parametrize("phase", ["load", "encode", "prefill", "denoise", "decode"])
def test_a_killed_rank_is_a_crash_in_its_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str):
    record = run(tmp_path, monkeypatch, f"sigkill 1 {phase}")
    assert record.outcome == "crash"
    assert (record.failure.rank, record.failure.phase) == (1, phase)
    assert "SIGKILL" in record.failure.message
    assert judge_outcome(record, PASS).verdict is Verdict.OUTCOME_CHANGED
    assert 0 in record.ranks, "what was read before the fault is kept"


def test_a_rank_that_answers_no_collective_is_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):

    def one_stopped_one_waiting() -> bool:
        states = states_of(shared_fork_client(PRELOAD).pid or 0)
        return (tmp_path / HAPPENED).exists() and sorted(states.values()) == ["S", "S", "T"]  # the server sleeps, too

    hold_the_clock(monkeypatch, one_stopped_one_waiting, leap=PATIENCE - HANG_SECONDS)
    record = run(tmp_path, monkeypatch, "sigstop 0 denoise")
    assert record.outcome == "hang"
    assert (record.failure.rank, record.failure.phase) == (0, "denoise")


def test_a_slow_rank_makes_a_slow_clip_and_nothing_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record = run(tmp_path, monkeypatch, "slow 1 denoise")
    assert record.outcome == "pass"
    assert record.timing.clip_seconds[0] > SLOW_SECONDS


def test_a_full_disk_under_the_video_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record = run(tmp_path, monkeypatch, "full-disk 0 denoise")
    assert record.outcome == "infrastructure", record.failure
    assert "could not be written" in record.failure.message
    assert judge_outcome(record, PASS).verdict is Verdict.INFRASTRUCTURE
    assert not list(tmp_path.glob("*.mp4*"))


@pytest.mark.parametrize(
    ("fault", "outcomes"),
    [
        ("few-files", ("infrastructure",)),
        ("little-memory", ("host-oom", "crash")),  # libraries do not all say that it was memory
    ],
)
def test_what_the_machine_lacks_is_typed_and_what_was_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, outcomes: tuple[str, ...]
):
    """RLIMIT_NOFILE as low as what is open, RLIMIT_AS a mebibyte above what is mapped."""
    record = run(tmp_path, monkeypatch, f"{fault} 0 encode")
    assert record.outcome in outcomes, record.failure
    assert record.failure.rank == 0
    assert 0 in record.ranks, "what was read before the fault is kept"
    assert not list(tmp_path.glob("*.part"))


def test_a_rank_that_prints_megabytes_is_heard_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record = run(tmp_path, monkeypatch, "babble 1 denoise")
    assert record.outcome == "pass"
    assert (tmp_path / "rank1.log").stat().st_size > 4_000_000


def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    start = time.time()
    readings = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: start - 3600 * next(readings))
    record = run(tmp_path, monkeypatch, "clock 0 load")
    assert record.outcome == "pass"
    assert all(seconds > 0 for seconds in record.timing.clip_seconds), "each reading of that clock lies before the last"
    assert record.timing.first_frame_seconds > 0


def test_nothing_reads_the_wall_clock():
    """But for the date of a record, and of its entry in a history."""
    folders = [Path(__file__).parents[2] / name for name in ("suites", "liveavatar_core")]
    text = {path: path.read_text() for folder in folders for path in folder.rglob("*.py")}
    readers = [path.name for path, code in text.items() if re.search(r"\btime\.time(_ns)?\(|datetime\.now\(", code)]
    assert sorted(readers) == ["build.py", "session.py"]
