"""How long a simulated verdict takes: seconds of each rank role of each case of each tier, start-up left out.

    python -m benchmarks.verdict_time [--clips N] [--execute-everything] [TIER ...]

The roles of a case run in processes of their own, so its verdict takes as long as its slowest role where there are
cores enough. Seconds of wall clock say little on a machine that does other things too; those of CPU are beside them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace

from liveavatar_core.hardware.cards import find_card
from liveavatar_core.parallel.ranks import distinct_ranks
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank
from liveavatar_core.simulation.memory_account import Capacity
from suites.harness.cases.tiers import Case, Tier, read_tiers

ROW = "{:<10} {:<26} {:>4} {:<6} {:>9} {:>9} {:>9} {:>9}"


def main() -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiers", nargs="*", metavar="TIER", help="tiers to time; all of tiers.toml if none is given")
    parser.add_argument("--clips", type=int, help="clips of each case, in place of its own")
    parser.add_argument("--execute-everything", action="store_true", help="without the shortcut for identical units")
    arguments = parser.parse_args()
    print(ROW.format("tier", "case", "rank", "ends", "CPU s", "wall s", "executed", "repeated"))
    for tier, case in _cases(arguments.tiers):
        for ranks in distinct_ranks(tier.recipe(case).deployment).values():
            print(_line(tier, case, ranks[0], arguments), flush=True)


def _cases(names: list[str]) -> Iterator[tuple[Tier, Case]]:
    tiers = read_tiers()
    return ((tiers[name], case) for name in names or tiers for case in tiers[name].cases)


def _line(tier: Tier, case: Case, rank: int, arguments: argparse.Namespace) -> str:
    recipe = tier.recipe(case)
    if arguments.clips is not None:
        recipe = replace(recipe, clip=replace(recipe.clip, num_clip=arguments.clips))
    capacity = Capacity(card=find_card(tier.card).usable_bytes_in(recipe.deployment))
    wall, cpu = time.perf_counter(), time.process_time()
    result = simulate_rank(recipe, rank, capacity, execute_everything=arguments.execute_everything)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    units = result.units_executed, result.units_repeated
    return ROW.format(tier.name, case.name, rank, _end(result), f"{cpu:.1f}", f"{wall:.1f}", *units)


def _end(result: SimulatedRank) -> str:
    return "oom" if result.out_of_memory else "pass"


if __name__ == "__main__":
    main()
