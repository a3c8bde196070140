"""What has a baseline: baselines/index.toml. What stands there and not in its file is lost, not new."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liveavatar_core import strict
from liveavatar_core.files import write_atomically
from suites.harness.records.machine_identity import machine_identity, machine_profile_name
from suites.harness.records.record import RunRecord, run_name

INDEX_FILE = "index.toml"
Index = dict[str, tuple[str, ...]]
"""Names of metrics by `machine profile/tier/case`."""


@dataclass(frozen=True, kw_only=True)
class _IndexFile:
    metrics: Index


def read_index(folder: Path) -> Index:
    """The index of a folder of baselines; empty if it has none. Raises BadData naming the file and the key."""
    path = folder / INDEX_FILE
    return index_of(strict.read_toml(path), str(path)) if path.exists() else {}


def index_of(tables: dict[str, Any], where: str) -> Index:
    """The index in a file's tables; raises BadData as `read_index` does."""
    return strict.build(_IndexFile, tables, where).metrics


def index_key(record: RunRecord) -> str:
    """Where the index has the baseline of `record`."""
    return f"{machine_profile_name(machine_identity(record))}/{run_name(record.tier)}/{record.case}"


def add_to_index(folder: Path, key: str, metrics: tuple[str, ...]) -> None:
    """Have the index list these metrics of `key`; the file stays as it is where it does already."""
    index = read_index(folder)
    if index.get(key) != metrics:
        write_atomically(folder / INDEX_FILE, render_index(index | {key: metrics}))


def render_index(index: Index) -> str:
    """The text of the file: the same for the same index, a case a line, sorted."""
    lines = [
        "# What has a baseline. A case or metric that is listed here and gone from its file is a lost baseline;",
        "# whoever drops one on purpose deletes it here as well. Written by pytest --baseline-update.",
        "",
        "[metrics]",
    ]
    lines += [f"{json.dumps(key)} = [{', '.join(map(json.dumps, names))}]" for key, names in sorted(index.items())]
    return "\n".join(lines) + "\n"
