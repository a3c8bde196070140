"""What a case measured night after night: a file of JSON lines, and which new values fall out of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from liveavatar_core.errors import BadData, BadInput
from liveavatar_core.files import write_atomically
from suites.harness.records.machine_identity import machine_identity
from suites.harness.records.record import SCHEMA, RunRecord
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

    Lines that are torn, and those of an earlier schema, are left out; `mend_history` sets the torn ones aside.

    Raises:
        BadData: the file cannot be read.
    """
    return [record for line in _lines(path) for record in _records(line, str(path)) or ()]


def mend_history(path: Path) -> list[str]:
    """Set lines aside that are no records, in a file beside the history; says so, in two lines.

    A power cut tears a line, or takes the newline that tells it from the next: what is whole of two records in a line
    is kept, each on its own.

    Raises:
        BadData: a file cannot be read or written.
    """
    lines = _lines(path)
    torn = [line for line in lines if _records(line, str(path)) is None]
    if not torn:
        return []
    aside = path.with_name(f"{path.name}.torn")
    write_atomically(aside, "".join(f"{line}\n" for line in [*_lines(aside), *torn]))
    write_atomically(path, "".join(f"{line}\n" for line in lines if line not in torn))
    count = f"{len(torn)} line{'s' if len(torn) > 1 else ''}"
    return [f"{path}: {count} could not be read and went to {aside.name}\nnext: look at it, or delete it"]


def append_history(path: Path, judged: Iterable[tuple[RunRecord, Verdict]]) -> None:
    """Add records with their verdicts, one a line. Raises BadInput where the file cannot be written."""
    text = "".join(_line(record, verdict) for record, verdict in judged)
    try:
        with path.open("a+b") as file:
            file.write((_missing_newline(file) + text).encode())
            file.flush()
            os.fsync(file.fileno())
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


def _lines(path: Path) -> list[str]:
    """The lines of a file, whatever bytes it holds; those that hold several documents are split."""
    try:
        text = path.read_bytes().decode("utf-8", errors="backslashreplace") if path.exists() else ""
    except OSError as error:
        raise BadData(f"{path}: {error}", "give --history a file of JSON lines") from error
    return [document for line in text.split("\n") if line.strip() for document in _documents(line)]


def _documents(line: str) -> list[str]:
    """The JSON documents of a line, and at its end what is none."""
    found, start = [], 0
    while start < len(line):
        try:
            _, end = json.JSONDecoder().raw_decode(line, start)
        except (ValueError, RecursionError):
            end = len(line)
        found.append(line[start:end])
        start = end
    return found


def _records(line: str, where: str) -> tuple[RunRecord, ...] | None:
    """The record of a line; none, where it is of an earlier schema; None: it is no record."""
    try:
        data = json.loads(line)
        del data["verdict"]
        if isinstance(data.get("schema"), int) and data["schema"] < SCHEMA:
            return ()
        return (RunRecord.from_json(json.dumps(data), where),)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadData):
        return None


def _missing_newline(file: BinaryIO) -> str:
    """What must come before a new line: a power cut may have taken the end of the last one."""
    if file.seek(0, os.SEEK_END) == 0:
        return ""
    file.seek(-1, os.SEEK_END)
    return "" if file.read(1) == b"\n" else "\n"
