"""Which commit a run is of, and whether the tree had changes that can change what it measures. Free of torch."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = "liveavatar-conformance"
MEASURED = (
    *("liveavatar_core", "suites", "tiny_avatar", "assets"),
    *("pyproject.toml", "conftest.py", "ci/constraints.txt"),
)
"""What a measurement depends on, from the top of the repository: code, assets and versions."""
WRITTEN_BY_RUNS = ("suites/fuzz/cases",)
"""What runs leave inside of that, and no measurement depends on."""
FILES_THAT_MATTER = (".py", ".toml", ".json", ".safetensors", ".png", ".wav", ".txt")
"""Ends of names that the code reads; other files beside it change nothing."""


@cache
def commit_at_start() -> str | None:
    """The commit of this project as it was when first asked, with `+` where the tree had changes.

    An installed package has the commit that pip took it from, or else its version, as v0.1.0; None: neither is known.
    A session asks when it starts: what it writes itself, and what changes while it runs, is not what it measures.
    """
    return commit_of(HERE) if _is_tracked() else _installed_from()


def _is_tracked() -> bool:
    """Whether this is a clone: an environment may lie inside of another project's repository."""
    try:
        _git(HERE, "ls-files", "--error-unmatch", Path(__file__).name)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _installed_from() -> str | None:
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        return None
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    return origin.get("vcs_info", {}).get("commit_id", "")[:10] or f"v{package.version}"


def commit_of(folder: Path) -> str | None:
    """The commit of the repository around `folder`, with `+` where something that a measurement depends on differs."""
    try:
        commit = _git(folder, "rev-parse", "--short=10", "HEAD").strip()
        changes = _git(folder, "status", "--porcelain", "-z", "--untracked-files=all", "--", *_pathspecs())
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if any(map(_matters, changes.split("\0"))) else "")


def _pathspecs() -> tuple[str, ...]:
    return (*(f":(top){path}" for path in MEASURED), *(f":(top,exclude){path}" for path in WRITTEN_BY_RUNS))


def _matters(entry: str) -> bool:
    """Whether a line of git's status is a change of a tracked file, or a new file that could be read."""
    return bool(entry) and (not entry.startswith("??") or entry.endswith(FILES_THAT_MATTER))


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout
