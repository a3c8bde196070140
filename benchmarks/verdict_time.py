"""How long a simulated verdict takes: seconds of each rank role of each case of each tier.

    python -m benchmarks.verdict_time [--cold] [--clips N] [--execute-everything] [TIER ...]

Each role runs in a process of its own, forked from one that has imported torch and simulated once, as under pytest;
with --cold from one that has only imported it. Start-up is left out. The roles of a case run beside each other, so its
verdict takes as long as its slowest role where there are cores enough. Seconds of wall clock say little on a machine
that does other things too; those of CPU are beside them.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Iterator
from dataclasses import replace

from liveavatar_core.hardware.cards import find_card
from liveavatar_core.parallel.ranks import distinct_ranks
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.simulation.memory_timeline import TimelineBuilder
from suites.harness.cases.tiers import Case, Tier, read_tiers
from suites.harness.workers.simulate import warm_up

ROW = "{:<10} {:<26} {:>4} {:<6} {:>9} {:>9} {:>9} {:>9}"


def main() -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiers", nargs="*", metavar="TIER", help="tiers to time; all of tiers.toml if none is given")
    parser.add_argument("--clips", type=int, help="clips of each case, in place of its own")
    parser.add_argument("--execute-everything", action="store_true", help="without the shortcut for identical units")
    parser.add_argument("--cold", action="store_true", help="fork from a process that has simulated nothing")
    arguments = parser.parse_args()
    if not arguments.cold:
        started = time.process_time()
        warm_up()
        print(f"warming up, once a session: {time.process_time() - started:.2f} CPU s", flush=True)
    gc.collect()
    gc.freeze()
    print(ROW.format("tier", "case", "rank", "ends", "CPU s", "wall s", "executed", "repeated"))
    for tier, case in _cases(arguments.tiers):
        for ranks in distinct_ranks(tier.recipe(case).deployment).values():
            _in_a_fork(tier, case, ranks[0], arguments)


def _cases(names: list[str]) -> Iterator[tuple[Tier, Case]]:
    tiers = read_tiers()
    return ((tiers[name], case) for name in names or tiers for case in tiers[name].cases)


def _in_a_fork(tier: Tier, case: Case, rank: int, arguments: argparse.Namespace) -> None:
    pid = os.fork()
    if pid == 0:
        print(_line(tier, case, rank, arguments), flush=True)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{tier.name}/{case.name}, rank {rank}: the process ended with status {status}")


def _line(tier: Tier, case: Case, rank: int, arguments: argparse.Namespace) -> str:
    recipe = tier.recipe(case)
    if arguments.clips is not None:
        recipe = replace(recipe, clip=replace(recipe.clip, num_clip=arguments.clips))
    capacity = Capacity(card=find_card(tier.card).usable_bytes_in(recipe.deployment))
    wall, cpu = time.perf_counter(), time.process_time()
    trace = TimelineBuilder()
    result = simulate_rank(recipe, rank, capacity, execute_everything=arguments.execute_everything, trace=trace)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    units = result.units_executed, result.units_repeated
    return ROW.format(tier.name, case.name, rank, _end(result), f"{cpu:.2f}", f"{wall:.2f}", *units)


def _end(result: SimulatedRank) -> str:
    return "oom" if result.out_of_memory else "pass"


if __name__ == "__main__":
    main()
