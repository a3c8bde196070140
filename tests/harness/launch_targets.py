"""What the ranks of test_launch.py run. Imports torch only where a test needs it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from waiting import PATIENCE, wait_until

from liveavatar_core.errors import InvalidRecipe, MemoryShortage, OutOfMemory
from suites.harness.messages import RankReport
from suites.harness.processes.link import Done

if TYPE_CHECKING:
    from suites.harness.processes.link import Link

NAP = int(10 * PATIENCE)
"""Seconds; whoever sleeps for so long is ended by somebody, or the test fails."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What ranks of these tests are given."""

    frames: int = 0
    lines: int = 0
    absent: int = -1
    mishap: str = ""
    mishaps: dict[str, str] = field(default_factory=dict)
    """By rank."""


@dataclass(frozen=True, kw_only=True)
class Echo:
    command: str
    rank: int
    given: Given
    argument: Given | None


@dataclass(frozen=True, kw_only=True)
class Described:
    omp_num_threads: str | None
    colour: str | None
    set_later: str | None
    threads: int
    process: int


@dataclass(frozen=True, kw_only=True)
class Total:
    total: float


def echo(link: Link) -> None:
    for command in link.commands():
        link.report(RankReport(phase="denoise" if command.name == "clip" else "load"))
        argument = command.argument_as(Given) if command.argument else None
        link.reply(Echo(command=command.name, rank=link.rank, given=link.job(Given), argument=argument))


def describe(link: Link) -> None:
    import torch

    for _ in link.commands():
        names = ("OMP_NUM_THREADS", "COLOUR", "SET_LATER")
        variables = {name.lower(): os.environ.get(name) for name in names}
        link.reply(Described(**variables, threads=torch.get_num_threads(), process=os.getpid()))


def all_reduce(link: Link) -> None:
    torch, dist = _join(link)
    for _ in link.commands():
        total = torch.tensor([float(link.rank)])
        dist.all_reduce(total)
        link.reply(Total(total=total.item()))


def barrier_with_one_absent(link: Link) -> None:
    """Every rank waits in a barrier but the absent one, which has its mishap."""
    _, dist = _join(link)
    given = link.job(Given)
    for command in link.commands():
        link.report(RankReport(phase="denoise" if link.rank == given.absent else "decode"))
        if command.name == "clip":
            note(link, "there")
            if link.rank == given.absent:
                MISHAPS[given.mishap](link)
        dist.barrier()
        link.reply(Done())


def barrier_with_a_time_out(link: Link) -> None:
    """All ranks meet, however long it takes; on `clip` again, in a group that soon gives up, but for the absent one."""
    _, dist = _join(link)
    given = link.job(Given)
    hasty = dist.new_group(timeout=timedelta(seconds=1))
    for command in link.commands():
        link.report(RankReport(phase="denoise" if link.rank == given.absent else "decode"))
        dist.barrier()
        if command.name == "clip":
            if link.rank == given.absent:
                MISHAPS[given.mishap](link)
            dist.barrier(hasty)
        link.reply(Done())


def _join(link: Link):
    import torch
    import torch.distributed as dist

    dist.init_process_group(
        "gloo",
        init_method=link.rendezvous,
        rank=link.rank,
        world_size=link.world_size,
        timeout=timedelta(seconds=NAP),
    )
    return torch, dist


def mishap(link: Link) -> None:
    """On `clip`, ranks have the mishap that is named for them; the others answer."""
    mishaps = link.job(Given).mishaps
    for command in link.commands():
        link.report(RankReport(phase="denoise" if command.name == "clip" else "load"))
        if command.name == "clip" and str(link.rank) in mishaps:
            note(link, "there")
            MISHAPS[mishaps[str(link.rank)]](link)
        link.reply(Done())
        if command.name == "clip":
            note(link, "there")


def note(link: Link, what: str) -> None:
    """Leave a file for the parent: `rank0.there`, or whatever it is."""
    (folder_of(link) / f"rank{link.rank}.{what}").touch()


def folder_of(link: Link) -> Path:
    """The group's own."""
    return Path(link.rendezvous.removeprefix("file://")).parent


def mishap_at_the_end(link: Link) -> None:
    for _ in link.commands():
        link.reply(Done())
    MISHAPS[link.job(Given).mishap](link)


def loud(link: Link) -> None:
    for _ in link.commands():
        for number in range(link.job(Given).lines):
            print(f"line {number} " + "x" * 1000)
        os.system("echo from a child of the rank")
        raise ValueError("that was all")


def out_of_memory(link: Link) -> None:
    raise OutOfMemory(
        MemoryShortage(
            rank=link.rank,
            phase="denoise",
            category="unsharded_parameters",
            requested=4_479_966_898,
            free=1024,
            capacity=23_783_604_224,
            holders={"parameters": 10},
        )
    )


def refuse(_: Link) -> None:
    raise InvalidRecipe("41 ranks for 40 heads", "give 40")


def lose_a_peer(_: Link) -> None:
    raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:40462")


def fill_host_memory(_: Link) -> None:
    raise MemoryError


def run_out_while_another_writes(link: Link) -> None:
    wait_until((folder_of(link) / "rank1.writing").exists)
    out_of_memory(link)


def save_a_snapshot(link: Link) -> None:
    """A snapshot of which half is written once the parent has looked at how another rank failed."""
    from types import SimpleNamespace

    from suites.harness.workers import cuda

    def dump(path: str) -> None:
        Path(path).write_text("the first half, ")
        note(link, "writing")
        wait_until((folder_of(link) / "seen").exists)
        Path(path).write_text("the first half, and the second")

    cuda.torch_private.dump_allocator_snapshot = dump
    cuda._save_snapshot(link, SimpleNamespace(folder=str(folder_of(link))))
    out_of_memory(link)


def kill_itself_late(link: Link) -> None:
    """Once the parent has looked at how another rank failed."""
    wait_until((folder_of(link) / "seen").exists)
    os.kill(os.getpid(), signal.SIGKILL)


def stumble(_: Link) -> None:
    raise ValueError("an error of its own")


def kill_itself(_: Link) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fault(_: Link) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def sleep(_: Link) -> None:
    time.sleep(NAP)


def sleep_deaf(link: Link) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    litter(link)
    time.sleep(NAP)


def litter(_: Link) -> None:
    """Start a process and forget it."""
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({NAP})"])


def sleep_native(_: Link) -> None:
    """No Python thread of this process runs again: native code holds the interpreter lock."""
    ctypes.PyDLL(None).sleep(NAP)


def answer_then_sleep_native(link: Link) -> None:
    link.reply(Done())
    note(link, "native")
    sleep_native(link)


def freeze(_: Link) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def leave(_: Link) -> None:
    os._exit(0)


def answer_nonsense(link: Link) -> None:
    link.reply(Total(total={1, 2}))  # type: ignore[arg-type]


MISHAPS = {
    "oom beside a snapshot": run_out_while_another_writes,
    "snapshot": save_a_snapshot,
    "oom": out_of_memory,
    "refused": refuse,
    "peer": lose_a_peer,
    "memory": fill_host_memory,
    "sigkill": kill_itself,
    "late sigkill": kill_itself_late,
    "error": stumble,
    "sigsegv": fault,
    "sleep": sleep,
    "deaf": sleep_deaf,
    "litter": litter,
    "native": sleep_native,
    "native later": answer_then_sleep_native,
    "freeze": freeze,
    "leave": leave,
    "nonsense": answer_nonsense,
}
