"""What sampling costs a clip: the same small clips with and without the probes of real cards, in turn, in one process.

    python -m benchmarks.probe_cost [--rounds N]

Probes are the NVML sampler (its thread, every 50 ms) and the reading of host memory at each change of phase. Where no
card is present NVML is stood in for by something that computes for as long as a reading was seen to take. Seconds are
of CPU, of all threads: those of a wall clock say little on a machine that does other things too, and are beside them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from liveavatar_core import scopes
from liveavatar_core.hardware.nvml import read_driver
from liveavatar_core.pipeline import Avatar, Inputs, open_avatar
from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.simulation.estimate import simulated_inputs
from suites.harness.probes.device import SAMPLE_SECONDS, DeviceSampler, HostMemory

READING_SECONDS = 50e-6
"""Seconds of one reading of NVML on an H200 machine."""
Cost = tuple[float, float]
"""Seconds of CPU, and of wall clock."""


class StandIn:
    """NVML's functions, none of which knows a card; reading memory keeps the CPU busy."""

    NVMLError = RuntimeError

    def nvmlInit(self) -> None:  # noqa: N802
        """Accept being started; there is nothing to do."""

    nvmlShutdown = nvmlInit  # noqa: N815

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        """The card itself."""
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        """Memory of the card, after as long as a real reading takes."""
        until = time.perf_counter() + READING_SECONDS
        while time.perf_counter() < until:
            pass
        return SimpleNamespace(used=1)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        """Reasons for lower clocks as bits: 0, nothing holds the card back."""
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        """Power of the card in milliwatts."""
        return 1


@contextmanager
def probes(library: Any, uuid: str) -> Iterator[None]:
    """Both of them, following the phases."""
    host, device = HostMemory(), DeviceSampler(library, uuid)

    def change(phase: str) -> None:
        device.start_phase(phase)
        host.start_phase(phase)

    with device, scopes.phases_told(change):
        yield


def clip_cost(avatar: Avatar, inputs: Inputs) -> Cost:
    """Make the clip."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in avatar.generate(inputs):
        pass
    return time.process_time() - cpu, time.perf_counter() - wall


def alternated(avatar: Avatar, inputs: Inputs, library: Any, uuid: str, rounds: int) -> tuple[list[Cost], list[Cost]]:
    """Costs without and with probes; which comes first changes from round to round."""
    bare: list[Cost] = []
    probed: list[Cost] = []
    for number in range(rounds):
        for with_probes in (number % 2 == 0, number % 2 == 1):
            with probes(library, uuid) if with_probes else nullcontext():
                (probed if with_probes else bare).append(clip_cost(avatar, inputs))
    return bare, probed


def main() -> None:
    """Print both medians and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="clips of each kind (9)")
    rounds = parser.parse_args().rounds
    library, uuid, name = _library()
    recipe = miniature(named_recipe("single", 1))
    recipe = replace(recipe, clip=replace(recipe.clip, num_clip=1))
    avatar = open_avatar(recipe)
    inputs = simulated_inputs(recipe)
    clip_cost(avatar, inputs)  # the first one warms caches up
    costs = alternated(avatar, inputs, library, uuid, rounds)
    bare, probed = ([statistics.median(column) for column in zip(*each, strict=True)] for each in costs)
    print(f"NVML: {name}, every {SAMPLE_SECONDS * 1000:.0f} ms; medians of {rounds} clips each")
    for unit, before, after in zip(("CPU s", "wall s"), bare, probed, strict=True):
        print(f"{unit:<7} without {before:.3f}  with {after:.3f}  difference {after / before - 1:+.2%}")
    print(f"readings alone: {READING_SECONDS / SAMPLE_SECONDS:.2%} of the wall clock")


def _library() -> tuple[Any, str, str]:
    driver = read_driver()
    if not driver.cards:
        return StandIn(), "none", f"stood in for, {READING_SECONDS * 1e6:.0f} microseconds a reading"
    import pynvml

    return pynvml, driver.cards[0].uuid, driver.cards[0].name or "a card"


if __name__ == "__main__":
    main()
