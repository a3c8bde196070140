"""What a case measured night after night: a folder with a small file a run, and which new values fall out of it.

A file is named by machine, case and time, so that any number of machines write to one share or bucket without meeting;
nothing is ever rewritten. Free of torch.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from liveavatar_core import strict
from liveavatar_core.errors import BadData
from liveavatar_core.files import write_atomically
from suites.harness.records.machine_identity import machine_identity, machine_profile_name
from suites.harness.records.record import HardwareName, Outcome, RunRecord
from suites.harness.verdicts.measured import metrics
from suites.harness.verdicts.metrics import worsening
from suites.harness.verdicts.stats import quantile

POINTS = 10
"""Values before a fence can be drawn."""
FENCE = 3.0
"""Interquartile ranges beyond the quartiles: of normal values one in 400 000 lies outside on either side."""
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """What is kept of one run for as long as there are nights."""

    schema: int = SCHEMA
    kept_at: str
    """When it was kept: UTC, as 20261121T234758.123456Z, which sorts as time goes."""
    machine: str
    """The machine's profile, as its folder of baselines is named."""
    identity: dict[str, Any]
    """The facts that two runs must have in common for their numbers to be compared."""
    tier: str
    case: str
    hardware: HardwareName
    recipe: str
    """Hash of the declared inputs."""
    outcome: Outcome
    verdict: str
    commit: str | None
    torch: str | None
    metrics: dict[str, float]
    """Median of each gated metric, by name."""

    @classmethod
    def of(cls, record: RunRecord, verdict: str, at: datetime) -> HistoryEntry:
        """The entry of a run."""
        identity = machine_identity(record)
        return cls(
            kept_at=at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ"),
            machine=machine_profile_name(identity),
            identity=identity,
            tier=record.tier,
            case=record.case,
            hardware=record.hardware,
            recipe=record.recipe.hash,
            outcome=record.outcome,
            verdict=verdict,
            commit=record.commit,
            torch=record.machine.torch,
            metrics=_values(record),
        )

    @property
    def day(self) -> str:
        """Its date, as 2026-11-21."""
        return f"{self.kept_at[:4]}-{self.kept_at[4:6]}-{self.kept_at[6:8]}"

    @property
    def series(self) -> tuple[Any, ...]:
        """All that entries must have in common to be of one series: case, recipe, ending, and exactly the machine."""
        identity = json.dumps(self.identity, sort_keys=True)
        return self.tier, self.case, self.recipe, self.outcome, identity


def keep(folder: Path, entry: HistoryEntry) -> Path:
    """Write the entry, whole or not at all. Raises BadData where the folder cannot be written."""
    name = f"{entry.tier}.{entry.case}.{entry.kept_at}-{uuid.uuid4().hex[:8]}.json"
    path = folder / entry.machine / name
    write_atomically(path, json.dumps(asdict(entry), allow_nan=False, sort_keys=True) + "\n")
    return path


def read_history(folder: Path, pattern: str = "*/*.json") -> tuple[list[HistoryEntry], list[Path]]:
    """The entries of a history, oldest first, and the files that are none. `pattern`: which files to read."""
    found, unreadable = [], []
    for path in sorted(folder.glob(pattern)):
        entry = _read(path)
        if entry is None:
            unreadable.append(path)
        else:
            found.append(entry)
    return sorted(found, key=lambda entry: entry.kept_at), unreadable


def series_of(folder: Path, record: RunRecord) -> list[HistoryEntry]:
    """Earlier runs of the same case and recipe that ended alike on exactly such a machine, oldest first."""
    this = HistoryEntry.of(record, "", datetime.min.replace(tzinfo=UTC))
    entries, _ = read_history(folder, f"{this.machine}/{this.tier}.{this.case}.*.json")
    return [entry for entry in entries if entry.series == this.series]


def unreadable_files(folder: Path) -> list[str]:
    """Says which files of a history are none, in two lines; nothing where all are."""
    _, paths = read_history(folder)
    if not paths:
        return []
    names = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    count = f"{len(paths)} file{'s' if len(paths) > 1 else ''}"
    return [f"{folder}: {count} could not be read: {names}\nnext: look at them, or delete them"]


def outliers(record: RunRecord, series: Iterable[HistoryEntry]) -> Iterator[str]:
    """Metrics of `record` that are worse than the fence of its earlier runs allows. Two lines each."""
    earlier = [entry.metrics for entry in series]
    for name, value in _values(record).items():
        values = [each[name] for each in earlier if name in each]
        if len(values) < POINTS:
            continue
        low, high = fence(values)
        if not low <= value <= high and worsening(name, quantile(values, 0.5), value) >= 0:
            yield (
                f"{record.tier}/{record.case} on {record.hardware} cards: {name} {value:g} lies outside of"
                f" {low:g} to {high:g}, the fence of {len(values)} earlier runs\n"
                "next: compare the commits since, and the machine's temperature and neighbours"
            )


def fence(values: list[float]) -> tuple[float, float]:
    """The lowest and the highest value that is no outlier of `values`, at least one."""
    lower, upper = quantile(values, 0.25), quantile(values, 0.75)
    margin = FENCE * (upper - lower)
    return lower - margin, upper + margin


def _values(record: RunRecord) -> dict[str, float]:
    return {name: metric.value for name, metric in metrics(record).items() if math.isfinite(metric.value)}


def _read(path: Path) -> HistoryEntry | None:
    """None: it is no entry, or one of a schema that is not known here."""
    try:
        entry = strict.build(HistoryEntry, json.loads(path.read_bytes()), str(path))
    except (OSError, ValueError, RecursionError, BadData):
        return None
    return entry if entry.schema == SCHEMA else None
