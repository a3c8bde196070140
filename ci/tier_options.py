"""A tier's case as options of `python -m liveavatar_core generate`, one a line: python -m ci.tier_options TIER CASE.

The first line is the number of processes. Free of torch. Exit status 2 where there is no such tier or case.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from liveavatar_core.errors import BadInput, LiveAvatarError
from suites.harness.cases.tiers import read_tiers


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a case's options, one a line; returns the exit status: 2 where there is no such tier or case."""
    parser = argparse.ArgumentParser(
        prog="python -m ci.tier_options", description="A tier's case as options of generate."
    )
    parser.add_argument("tier", metavar="TIER")
    parser.add_argument("case", metavar="CASE")
    parser.add_argument("--tiers", action="append", type=Path, default=[], metavar="FILE", help="more tiers")
    options = parser.parse_args(arguments)
    try:
        lines = tier_options(options.tier, options.case, *options.tiers)
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def tier_options(tier_name: str, case_name: str, *files: Path) -> list[str]:
    """Number of processes, then the options that differ from generate's defaults."""
    tiers = read_tiers(*files)
    if tier_name not in tiers:
        raise BadInput(f"there is no tier {tier_name!r}", f"tiers: {', '.join(tiers)}")
    tier = tiers[tier_name]
    recipe = tier.recipe(tier.case(case_name))
    return [str(tier.cards), *_changed(recipe.clip), *_changed(recipe.deployment)]


def _changed(declared: Any) -> list[str]:
    values = {item.name: getattr(declared, item.name) for item in fields(declared)}
    changed = {item.name: values[item.name] for item in fields(declared) if values[item.name] != item.default}
    if "quirks" in changed:
        raise BadInput("quirks of a clip cannot be told to generate", "choose a case without them")
    return [f"--{name}={value}" for name, value in changed.items()]


if __name__ == "__main__":
    sys.exit(main())
