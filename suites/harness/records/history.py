"""What a case measured night after night: a file of JSON lines, and which new values fall out of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from liveavatar_core.errors import BadData, BadInput
from suites.harness.records.machine_identity import machine_identity
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.measured import metrics
from suites.harness.verdicts.metrics import worsening
from suites.harness.verdicts.stats import quantile
from suites.harness.verdicts.verdict import Verdict

POINTS = 10
"""Values before a fence can be drawn."""
FENCE = 3.0
"""Interquartile ranges beyond the quartiles: of normal values one in 400 000 lies outside on either side."""


def read_history(path: Path) -> list[RunRecord]:
    """The records of a history, oldest first; none if there is no file yet.

    Raises:
        BadData: it cannot be read, or a line is no record.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: {error}", "give --history a file of JSON lines") from error
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def append_history(path: Path, judged: Iterable[tuple[RunRecord, Verdict]]) -> None:
    """Add records with their verdicts, one a line. Raises BadInput where the file cannot be written."""
    text = "".join(_line(record, verdict) for record, verdict in judged)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}", "give --history a file that can be written") from error


def outliers(record: RunRecord, history: Iterable[RunRecord]) -> Iterator[str]:
    """Metrics of `record` that are worse than its fence over comparable earlier runs allows. Two lines each."""
    earlier = [metrics(each) for each in same_series(record, history)]
    for name, metric in metrics(record).items():
        values = [each[name].value for each in earlier if name in each and each[name].samples]
        if len(values) < POINTS or not metric.samples:
            continue
        low, high = fence(values)
        value = metric.value
        if not low <= value <= high and worsening(name, quantile(values, 0.5), value) >= 0:
            yield (
                f"{record.tier}/{record.case} on {record.hardware} cards: {name} {value:g} lies outside of"
                f" {low:g} to {high:g}, the fence of {len(values)} earlier runs\n"
                "next: compare the commits since, and the machine's temperature and neighbours"
            )


def same_series(record: RunRecord, history: Iterable[RunRecord]) -> list[RunRecord]:
    """Runs of the same case and recipe that ended alike on exactly such a machine, in their order."""
    return [each for each in history if _key(each) == _key(record)]


def fence(values: list[float]) -> tuple[float, float]:
    """The lowest and the highest value that is no outlier of `values`, at least one."""
    lower, upper = quantile(values, 0.25), quantile(values, 0.75)
    margin = FENCE * (upper - lower)
    return lower - margin, upper + margin


def _key(record: RunRecord) -> tuple[Any, ...]:
    """All that runs must have in common to be of one series."""
    identity = json.dumps(machine_identity(record), sort_keys=True)
    return record.tier, record.case, record.recipe.hash, record.outcome, identity


def _line(record: RunRecord, verdict: Verdict) -> str:
    return json.dumps(json.loads(record.to_json()) | {"verdict": verdict}, allow_nan=False) + "\n"


def _record(line: str, where: str) -> RunRecord:
    try:
        data = json.loads(line)
        del data["verdict"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{where}: {error}", "delete the line, or restore the file") from error
    return RunRecord.from_json(json.dumps(data), where)
