"""How many drawn recipes of the whole 14B are simulated and checked in a minute, over all cores.

python -m benchmarks.fuzz_rate [--rule whole] [--seconds 60] [--workers 2]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os

from suites.fuzz.catalogue import RULES, Profile


def rate_of(rule: str, seconds: float) -> float:
    """Cases a minute that one process comes to; the first is not counted, as it loads what the others use."""
    from suites.fuzz.run_rule import run_rule  # imported here: it takes torch

    once, long = (
        Profile(seconds=limit, least=1, most=most, shrink_seconds=0, random=True)
        for limit, most in ((0.0, 1), (seconds, 10**6))
    )
    run_rule(rule, once)
    found = run_rule(rule, long)
    assert found.broken is None, f"{found.broken.command}: {found.why}"
    return 60 * found.tried / found.seconds


def main() -> None:
    """Print the rate of each process and of all."""
    parser = argparse.ArgumentParser(description="Recipes fuzzed in a minute.")
    parser.add_argument("--rule", default="whole", choices=RULES, help="(whole)")
    parser.add_argument("--seconds", type=float, default=60, help="for each process (60)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (a core each)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        rates = pool.starmap(rate_of, [(options.rule, options.seconds)] * options.workers)
    print(f"{options.rule}: {' + '.join(f'{rate:.1f}' for rate in rates)} = {sum(rates):.1f} recipes a minute")


if __name__ == "__main__":
    main()
