"""What the ranks of test_launch.py run. Imports torch only where a test needs it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from waiting import PATIENCE, wait_until

from liveavatar_core.errors import InvalidRecipe, MemoryShortage, OutOfMemory

if TYPE_CHECKING:
    from suites.harness.processes.child_link import ChildLink

NAP = int(10 * PATIENCE)
"""Seconds; whoever sleeps for so long is ended by somebody, or the test fails."""


def echo(link: ChildLink) -> None:
    for command in link.commands():
        link.event({"phase": command})
        link.reply({"command": command, "rank": link.rank, "payload": link.payload})


def describe(link: ChildLink) -> None:
    import torch

    for _ in link.commands():
        variables = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "COLOUR", "SET_LATER")}
        link.reply({**variables, "threads": torch.get_num_threads(), "process": os.getpid()})


def all_reduce(link: ChildLink) -> None:
    torch, dist = _join(link)
    for _ in link.commands():
        total = torch.tensor([float(link.rank)])
        dist.all_reduce(total)
        link.reply({"total": total.item()})


def barrier_with_one_absent(link: ChildLink) -> None:
    """Every rank waits in a barrier but the absent one, which does what the payload says."""
    _, dist = _join(link)
    for command in link.commands():
        link.event({"phase": "denoise" if link.rank == link.payload["absent"] else "decode"})
        if command == "clip":
            note(link, "there")
            if link.rank == link.payload["absent"]:
                MISHAPS[link.payload["mishap"]](link)
        dist.barrier()
        link.reply({})


def _join(link: ChildLink):
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


def mishap(link: ChildLink) -> None:
    """On `clip`, ranks have the mishap that the payload names for them; the others answer."""
    for command in link.commands():
        link.event({"phase": command})
        if command == "clip" and link.rank in link.payload:
            note(link, "there")
            MISHAPS[link.payload[link.rank]](link)
        link.reply({})
        if command == "clip":
            note(link, "there")


def note(link: ChildLink, what: str) -> None:
    """Leave a file for the parent: `rank0.there`, or whatever it is."""
    (folder_of(link) / f"rank{link.rank}.{what}").touch()


def folder_of(link: ChildLink) -> Path:
    """The group's own."""
    return Path(link.rendezvous.removeprefix("file://")).parent


def mishap_at_the_end(link: ChildLink) -> None:
    for _ in link.commands():
        link.reply({})
    MISHAPS[link.payload["mishap"]](link)


def loud(link: ChildLink) -> None:
    for _ in link.commands():
        for number in range(link.payload["lines"]):
            print(f"line {number} " + "x" * 1000)
        os.system("echo from a child of the rank")
        raise ValueError("that was all")


def out_of_memory(link: ChildLink) -> None:
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


def refuse(_: ChildLink) -> None:
    raise InvalidRecipe("41 ranks for 40 heads", "give 40")


def lose_a_peer(_: ChildLink) -> None:
    raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:40462")


def fill_host_memory(_: ChildLink) -> None:
    raise MemoryError


def kill_itself_late(link: ChildLink) -> None:
    """Once the parent has looked at how another rank failed."""
    wait_until((folder_of(link) / "seen").exists)
    os.kill(os.getpid(), signal.SIGKILL)


def stumble(_: ChildLink) -> None:
    raise ValueError("an error of its own")


def kill_itself(_: ChildLink) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fault(_: ChildLink) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def sleep(_: ChildLink) -> None:
    time.sleep(NAP)


def sleep_deaf(link: ChildLink) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    litter(link)
    time.sleep(NAP)


def litter(_: ChildLink) -> None:
    """Start a process and forget it."""
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({NAP})"])


def sleep_native(_: ChildLink) -> None:
    """No Python thread of this process runs again: native code holds the interpreter lock."""
    ctypes.PyDLL(None).sleep(NAP)


def answer_then_sleep_native(link: ChildLink) -> None:
    link.reply({})
    note(link, "native")
    sleep_native(link)


def freeze(_: ChildLink) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def leave(_: ChildLink) -> None:
    os._exit(0)


def answer_nonsense(link: ChildLink) -> None:
    link.reply({"frames": {1, 2}})


MISHAPS = {
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
