"""Ranks as child processes: real processes, real signals, real gloo."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launch_targets import Described, Echo, Given, Total
from processes import IMPORT_PATH, at_rest, await_count, hold_the_clock
from waiting import PATIENCE, wait_until

from liveavatar_core.errors import BadInput, OutOfMemory
from suites.harness.messages import RankReport
from suites.harness.processes import failures
from suites.harness.processes.fork_client import ForkClient, shared_fork_client
from suites.harness.processes.interrupts import interrupts_held
from suites.harness.processes.link import Done
from suites.harness.processes.rank_group import GroupError, Job, RankGroup


def job(target: str, *, world_size: int = 2, **settings) -> Job:
    return Job(target=f"launch_targets:{target}", world_size=world_size, **settings)


def mishap(name: str, *ranks: int, **settings) -> Job:
    return job("mishap", given=Given(mishaps=dict.fromkeys(map(str, ranks), name)), **settings)


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """After each test there is the fork server, and nothing else that came from it."""
    yield
    if server := server_pid():
        await_count(server, at_most=1)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, ranks that may still fail are waited for."""
    monkeypatch.setattr("suites.harness.processes.rank_group.GRACE_SECONDS", PATIENCE)
    monkeypatch.setattr("suites.harness.processes.rank_group.CAUSE_SECONDS", PATIENCE)
    monkeypatch.setattr("suites.harness.processes.rank_group.STACKS_SECONDS", PATIENCE)


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Callable[[Job, Path], GroupError]:
    """`fail`, where the deadline of the command begins once every rank is where it will stay."""

    def failed(given: Job, folder: Path) -> GroupError:
        hold_the_clock(monkeypatch, lambda: at_rest(server_pid(), folder, "there", given.world_size))
        return fail(given, folder)

    return failed


def server_pid() -> int:
    return shared_fork_client(("torch",)).pid or 0


def fail(given: Job, folder: Path, command: str = "clip") -> GroupError:
    """How the group failed at a command, which must have ended it: a rank that still waits would be a hang."""
    with RankGroup.start(given, folder) as group:
        group.command("load", answer=Done)
        with pytest.raises(GroupError) as caught:
            group.command(command, answer=Done)
        with pytest.raises(BadInput):
            group.command(command, answer=Done)
    return caught.value


def test_answers_come_in_order_of_rank(tmp_path: Path):
    with RankGroup.start(job("echo", world_size=5, given=Given(frames=48)), tmp_path) as group:
        for command in ("load", "clip", "clip"):
            replies = group.command(command, Given(lines=3), answer=Echo)
            expected = {"command": command, "given": Given(frames=48), "argument": Given(lines=3)}
            assert replies == [Echo(rank=rank, **expected) for rank in range(5)]
        assert group.last_reports == [RankReport(phase="denoise")] * 5


def test_five_ranks_meet_over_gloo(tmp_path: Path):
    with RankGroup.start(job("all_reduce", world_size=5), tmp_path) as group:
        assert group.command("clip", answer=Total) == [Total(total=10.0)] * 5


def test_ranks_have_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SET_LATER", "after the server was started")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    env = ({"OMP_NUM_THREADS": "3"}, {"COLOUR": "red"})
    with RankGroup.start(job("describe", env=env), tmp_path) as group:
        first, second = group.command("load", answer=Described)
        assert [first.process, second.process] == group.pids
    assert (first.omp_num_threads, first.threads, first.colour) == ("3", 3, None)
    assert (second.omp_num_threads, second.threads, second.colour) == ("1", 1, "red")
    assert first.set_later == second.set_later == "after the server was started"


def test_the_parent_stays_free_of_torch(tmp_path: Path):
    script = f"""
import sys
from pathlib import Path
from launch_targets import Described
from suites.harness.processes.rank_group import Job, RankGroup
with RankGroup.start(Job(target="launch_targets:describe", world_size=1), Path({str(tmp_path)!r})) as group:
    group.command("load", answer=Described)
sys.exit("torch" in sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": IMPORT_PATH}
    child = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert child.returncode == 0


def test_out_of_memory_ends_ranks_in_a_collective(tmp_path: Path):
    given = job("barrier_with_one_absent", world_size=3, given=Given(absent=2, mishap="oom"))
    failed = fail(given, tmp_path)
    [failure] = failed.failures
    assert (failure.kind, failure.rank, failure.phase) == ("oom", 2, "denoise")
    assert isinstance(failure.error, OutOfMemory)
    short = failure.error.shortage
    assert (short.requested, short.free, short.holders) == (4_479_966_898, 1024, {"parameters": 10})
    assert "OutOfMemory" in failure.detail


def test_out_of_memory_on_several_ranks_names_all(tmp_path: Path):
    failed = fail(mishap("oom", 3, 1, world_size=4, rank_names=("dit", "dit", "dit", "decode")), tmp_path)
    assert [(failure.kind, failure.rank, failure.name) for failure in failed.failures] == [
        ("oom", 1, "dit"),
        ("oom", 3, "decode"),
    ]
    assert pickle.loads(pickle.dumps(failed)).failures[1].rank == 3


def test_killed_rank_is_blamed_and_not_those_that_lost_it(tmp_path: Path):
    given = job("barrier_with_one_absent", world_size=3, given=Given(absent=1, mishap="sigkill"))
    [failure] = fail(given, tmp_path).failures
    assert (failure.kind, failure.rank) == ("crash", 1)
    assert "SIGKILL" in failure.message


def test_cause_is_awaited_when_a_rank_only_lost_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It comes once the parent has looked at the rank that lost it, and would not wait for any other failure."""

    def seen(rank) -> bool:
        (tmp_path / "seen").touch()
        return failures.lost_a_peer(rank)

    monkeypatch.setattr("suites.harness.processes.rank_group.lost_a_peer", seen)
    monkeypatch.setattr("suites.harness.processes.rank_group.GRACE_SECONDS", 0.0)
    [failure] = fail(job("mishap", given=Given(mishaps={"0": "peer", "1": "late sigkill"})), tmp_path).failures
    assert (failure.kind, failure.rank) == ("crash", 1)


def test_a_rank_that_writes_down_what_it_holds_is_let_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """However little patience there is with other ranks."""

    def seen(rank) -> bool:
        (tmp_path / "seen").touch()
        return failures.lost_a_peer(rank)

    monkeypatch.setattr("suites.harness.processes.rank_group.lost_a_peer", seen)
    monkeypatch.setattr("suites.harness.processes.rank_group.GRACE_SECONDS", 0.0)
    mishaps = {"0": "oom beside a snapshot", "1": "snapshot"}
    failed = fail(job("mishap", given=Given(mishaps=mishaps)), tmp_path)
    assert [(failure.kind, failure.rank) for failure in failed.failures] == [("oom", 0), ("oom", 1)]
    assert (tmp_path / "rank1.snapshot.pickle").read_text() == "the first half, and the second"


def test_error_beside_an_out_of_memory_is_not_hidden(tmp_path: Path):
    failed = fail(job("mishap", world_size=3, given=Given(mishaps={"0": "error", "1": "peer", "2": "oom"})), tmp_path)
    assert [(failure.kind, failure.rank) for failure in failed.failures] == [("oom", 2), ("crash", 0)]


def test_interrupts_pass_ranks_by(tmp_path: Path):
    with RankGroup.start(job("echo"), tmp_path) as group:
        for pid in group.pids:
            os.kill(pid, signal.SIGINT)
        assert len(group.command("clip", answer=Echo)) == 2


@pytest.mark.usefixtures("interruptible")
def test_interrupts_are_held_until_the_end():
    finished = []

    def press_twice():
        with interrupts_held():
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
                finished.append(True)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert finished == [True, True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_interrupts_that_are_ignored_stay_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_held():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_kill_for_host_memory_is_told_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counter = tmp_path / "vmstat"
    counter.write_text("pgfault 7\noom_kill 4\n")
    monkeypatch.setattr(
        "suites.harness.processes.rank_group.count_oom_kills", lambda: failures.count_oom_kills(counter)
    )
    assert fail(mishap("sigkill", 0), tmp_path / "before").lead.kind == "crash"
    with RankGroup.start(mishap("sigkill", 0), tmp_path / "after") as group:
        counter.write_text("pgfault 9\noom_kill 5\n")
        with pytest.raises(GroupError) as caught:
            group.command("clip", answer=Echo)
    assert caught.value.lead.kind == "host-oom"


def test_kernel_tells_its_kills_or_nothing(tmp_path: Path):
    assert failures.count_oom_kills(tmp_path / "absent") is None
    assert failures.count_oom_kills() is None or failures.count_oom_kills() >= 0


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("refused", "unsupported", "41 ranks for 40 heads"),
        ("memory", "host-oom", "MemoryError"),
        ("sigsegv", "crash", "SIGSEGV"),
        ("leave", "crash", "exit status 0 without answering 'clip'"),
        ("nonsense", "crash", "not JSON serializable"),
    ],
)
def test_each_end_has_its_kind(name: str, kind: str, words: str, tmp_path: Path):
    [failure] = fail(mishap(name, 1), tmp_path).failures
    assert (failure.kind, failure.rank, failure.phase) == (kind, 1, "denoise")
    assert words in failure.message


def test_a_peer_that_is_lost_without_a_cause_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("suites.harness.processes.rank_group.CAUSE_SECONDS", 0.1)
    [failure] = fail(mishap("peer", 1), tmp_path).failures
    assert (failure.kind, failure.rank) == ("crash", 1)
    assert "Connection closed by peer" in failure.message


def test_traceback_of_a_fault_is_in_the_detail(tmp_path: Path):
    assert "launch_targets.py" in fail(mishap("sigsegv", 0), tmp_path).lead.detail


def test_hang_names_the_rank_that_the_others_wait_for(hang, tmp_path: Path):
    given = job("barrier_with_one_absent", world_size=3, given=Given(absent=1, mishap="sleep"), command_seconds=1)
    [failure] = hang(given, tmp_path).failures
    assert (failure.kind, failure.rank, failure.phase) == ("hang", 1, "denoise")
    assert "in sleep" in failure.detail, "its stack says where it hangs"


def test_rank_that_resists_is_killed_with_what_it_started(hang, tmp_path: Path):
    [failure] = hang(mishap("deaf", 0, command_seconds=1), tmp_path).failures
    assert (failure.kind, failure.rank) == ("hang", 0)


@pytest.mark.parametrize("name", ["native", "freeze"])
def test_rank_that_runs_no_python_is_killed(name: str, hang, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if name == "freeze":  # and never writes its stack
        monkeypatch.setattr("suites.harness.processes.rank_group.STACKS_SECONDS", 1.0)
    [failure] = hang(mishap(name, 1, command_seconds=1), tmp_path).failures
    assert (failure.kind, failure.rank) == ("hang", 1)


def test_what_a_rank_started_ends_with_it(tmp_path: Path):
    with RankGroup.start(mishap("litter", 0, 1), tmp_path) as group:
        group.command("clip", answer=Done)
        await_count(server_pid(), at_least=5)
    await_count(server_pid(), at_most=1)


def test_rank_that_does_not_stop_is_a_hang(tmp_path: Path):
    group = RankGroup.start(job("mishap_at_the_end", given=Given(mishap="sleep"), stop_seconds=1), tmp_path)
    with pytest.raises(GroupError) as caught:
        group.stop()
    assert [failure.kind for failure in caught.value.failures] == ["hang", "hang"]


def test_failure_while_stopping_is_told(tmp_path: Path):
    with (
        pytest.raises(GroupError) as caught,
        RankGroup.start(job("mishap_at_the_end", given=Given(mishap="oom")), tmp_path) as group,
    ):
        group.command("clip", answer=Done)
    assert {failure.kind for failure in caught.value.failures} == {"oom"}


def test_failure_between_commands_is_found_by_the_next(tmp_path: Path):
    with RankGroup.start(job("echo"), tmp_path) as group:
        os.kill(group.pids[1], signal.SIGTERM)
        with pytest.raises(GroupError) as caught:
            group.command("clip", answer=Echo)
    assert "SIGTERM" in caught.value.lead.message


def test_megabytes_of_output_do_not_block_and_the_end_is_kept(tmp_path: Path):
    with (
        RankGroup.start(job("loud", given=Given(lines=8000)), tmp_path) as group,
        pytest.raises(GroupError) as caught,
    ):
        group.command("clip", answer=Done)
    failure = caught.value.lead
    assert (tmp_path / "rank0.log").stat().st_size > 8_000_000
    assert len(failure.detail) <= failures.TAIL
    for words in ("line 7999", "from a child of the rank", "ValueError: that was all"):
        assert words in failure.detail


@pytest.mark.parametrize("target", ["no_such_module:main", "launch_targets:no_such_function"])
def test_target_that_is_not_there(target: str, tmp_path: Path):
    with pytest.raises(GroupError) as caught:
        RankGroup.start(Job(target=target, world_size=2), tmp_path)
    assert {failure.kind for failure in caught.value.failures} == {"crash"}
    assert "no_such" in str(caught.value)


def test_preload_that_is_not_there(tmp_path: Path):
    with pytest.raises(GroupError) as caught:
        RankGroup.start(job("echo", preload=("no_such_module",)), tmp_path)
    assert caught.value.lead.kind == "infrastructure"
    assert "no_such_module" in caught.value.lead.message


def test_group_after_a_failed_one_is_unaffected(tmp_path: Path):
    fail(job("barrier_with_one_absent", given=Given(absent=1, mishap="sigkill")), tmp_path)
    with RankGroup.start(job("all_reduce"), tmp_path) as group:
        assert group.command("clip", answer=Total) == [Total(total=1.0)] * 2


def test_server_that_dies_fails_its_group_and_is_replaced(tmp_path: Path):
    with RankGroup.start(mishap("native later", 0, 1), tmp_path) as group:
        group.command("clip", answer=Done)
        wait_until(lambda: at_rest(server_pid(), tmp_path, "native", 2))  # no thread of theirs can notice anything
        before = server_pid()
        os.kill(before, signal.SIGKILL)
        with pytest.raises(GroupError) as caught:
            group.command("clip", answer=Done)
    assert caught.value.lead.kind == "infrastructure"
    await_count(before, at_most=0)
    with RankGroup.start(job("echo"), tmp_path) as group:
        assert len(group.command("load", answer=Echo)) == 2


def test_interrupted_fork_does_not_confuse_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ForkClient, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            RankGroup.start(job("echo"), tmp_path)
    with RankGroup.start(job("echo"), tmp_path) as group:
        assert len(group.command("load", answer=Echo)) == 2


def test_server_that_dies_between_groups_is_replaced(tmp_path: Path):
    with RankGroup.start(job("echo"), tmp_path):
        before = server_pid()
    os.kill(before, signal.SIGKILL)
    await_count(before, at_most=0)
    with RankGroup.start(job("echo"), tmp_path) as group:
        assert len(group.command("load", answer=Echo)) == 2


@pytest.mark.parametrize("settings", [{"world_size": 0}, {"env": ({},)}, {"rank_names": ("a", "b", "c")}])
def test_job_that_contradicts_itself(settings: dict):
    with pytest.raises(BadInput):
        job("echo", **settings)


def test_the_process_that_ranks_are_forked_from_sees_no_card(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-of-the-parent")
    client = ForkClient(())
    try:
        client.fork(time.monotonic() + PATIENCE).connection.close()
        environment = Path(f"/proc/{client.pid}/environ").read_bytes().split(b"\0")
    finally:
        client.close()
    assert b"CUDA_VISIBLE_DEVICES=" in environment
    assert b"CUDA_VISIBLE_DEVICES=GPU-of-the-parent" not in environment
