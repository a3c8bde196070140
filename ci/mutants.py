"""Which small changes of the code that judges no fast test notices: python -m ci.mutants [NAME ...].

Runs mutmut as pyproject.toml says, then leaves out what ci/equivalent_mutants.toml explains. It takes hours and can be
interrupted: what was tried is not tried again unless its function changed. NAME tries a part, such as
`suites.harness.verdicts.judge*`. Exit status: 0, nothing else survived; 1, something did; 2, mutmut could not run.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from liveavatar_core import strict
from liveavatar_core.errors import LiveAvatarError

EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
SURVIVED = ("survived", "no tests", "timeout", "suspicious")
"""What mutmut says of mutants that no test killed."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A change of one line."""

    function: str
    """Module and function, as `suites.harness.verdicts.stats.disjoint`."""
    before: str
    """The line as it is."""
    after: str
    """As it was changed."""


@dataclass(frozen=True, kw_only=True)
class Equivalent:
    """A change that no test could notice."""

    function: str
    after: str
    """The changed line."""
    reason: str
    """Why it does the same."""


@dataclass(frozen=True, kw_only=True)
class _File:
    mutant: tuple[Equivalent, ...] = ()


def main() -> int:
    """Run the mutants that were named, or all, and print those that survived; returns the exit status."""
    try:
        known = strict.build(_File, strict.read_toml(EQUIVALENT), str(EQUIVALENT)).mutant
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    if _mutmut("run", *sys.argv[1:]).returncode:
        print("mutmut could not run\nnext: make setup, then mutmut run", file=sys.stderr)
        return 2
    names = _names(_mutmut("results", "--all", "true").stdout)
    explained = {(each.function, each.after) for each in known}
    survivors = [show(name) for name, status in names.items() if status in SURVIVED]
    left = [each for each in survivors if (each.function, each.after) not in explained]
    for each in left:
        print(f"{each.function}\n  - {each.before}\n  + {each.after}")
    tried = sum(status != "not checked" for status in names.values())
    print(f"{tried} of {len(names)} mutants tried, {len(left)} survived, {len(survivors) - len(left)} are equivalent")
    return int(bool(left))


def _names(text: str) -> dict[str, str]:
    """Status by mutant, of lines `module.x_function__mutmut_1: survived`."""
    pairs = (line.strip().rpartition(": ") for line in text.splitlines() if "__mutmut_" in line)
    return {name: status for name, _, status in pairs}


def show(name: str) -> Mutant:
    """What the mutant of that name changes."""
    return parse_diff(name, _mutmut("show", name).stdout)


def parse_diff(name: str, diff: str) -> Mutant:
    """The first line that a unified diff changes; its function is in mutmut's name of the mutant."""
    lines = diff.splitlines()
    before = next((line[1:].strip() for line in lines if line.startswith("-") and not line.startswith("---")), "")
    after = next((line[1:].strip() for line in lines if line.startswith("+") and not line.startswith("+++")), "")
    module, _, mangled = name.rpartition("__mutmut_")[0].rpartition(".")
    function = mangled.removeprefix("xǁ").removeprefix("x_").replace("ǁ", ".")
    return Mutant(function=f"{module}.{function}", before=before, after=after)


def _mutmut(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
