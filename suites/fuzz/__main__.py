"""Run one case again: `python -m suites.fuzz 'CASE'`, as a failure prints it, or the name of a kept one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from liveavatar_core.errors import LiveAvatarError
from suites.fuzz.case import kept_cases, read_case
from suites.fuzz.catalogue import RULES


def main(arguments: Sequence[str] | None = None) -> int:
    """Try one case; the exit status: 0 where the rule holds, 1 where it is broken, 2 where that is no case."""
    parser = argparse.ArgumentParser(prog="python -m suites.fuzz", description=__doc__)
    parser.add_argument("case", help="a line of JSON, or the name of a kept case")
    given = parser.parse_args(arguments).case
    try:
        case = kept_cases().get(given) or read_case(given)
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    from suites.fuzz.rules import Broken
    from suites.fuzz.run_rule import run_case  # imported here: it takes torch

    print(f"{case.rule}: {RULES[case.rule].says}")
    try:
        peak = run_case(case)
    except Broken as error:
        print(f"broken: {error}")
        return 1
    print(f"holds; fullest card {peak / 2**30:.3f} GiB" if peak else "holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
