"""Baselines: reviewed numbers, in TOML files that git keeps. baselines/<machine profile>/<tier>.toml."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from liveavatar_core import strict
from liveavatar_core.errors import BadData
from suites.harness.records.machine_identity import machine_identity, machine_profile_name, usable_gib
from suites.harness.records.record import RunRecord, run_name
from suites.harness.verdicts.metrics import WIDEST_REL, metric_kind
from suites.harness.verdicts.stats import Summary

MACHINE = "machine"
"""The table of a file that is no case."""
OWN_KEYS = ("recipe", "outcome", "phase", "measured", "history")
"""The keys of a case that are no metrics."""


@dataclass(frozen=True, kw_only=True)
class MetricBaseline:
    """The reviewed value of a metric and what may differ from it."""

    value: float
    """Median; unit in the metric's name."""
    spread: float = 0.0
    """Interquartile range of the samples."""
    n: int = 1
    """Samples."""
    rel: float
    """A change smaller than this part of the value is none."""
    abs: float
    """A change smaller than this, in the metric's unit, is none."""
    limit: float | None = None
    """What the metric may never exceed."""
    best: float | None = None
    """The best value since a reason was last given, where that is not `value`: small steps add up from here."""

    def __post_init__(self) -> None:
        for name in ("value", "spread", "rel", "abs", "limit", "best"):
            number = getattr(self, name)
            if number is not None and not (math.isfinite(number) and (name in ("value", "best") or number >= 0)):
                raise ValueError(f"{name} {number} is not a finite number of at least 0")
        if self.n < 1:
            raise ValueError(f"n {self.n} is no number of samples")

    @property
    def best_value(self) -> float:
        """`best`, or the value where nothing crept."""
        return self.value if self.best is None else self.best

    @property
    def summary(self) -> Summary:
        """Value, spread and number of samples, in the form that samples of a run are summed up in."""
        return Summary(value=self.value, spread=self.spread, n=self.n)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where values are from."""

    commit: str
    """Of the working tree; `+` after it where that had changes."""
    date: date
    torch: str
    """Its version."""
    run: str
    """Who ran it."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{7,40}\+?|v\d+(\.\w+)*", self.commit):
            raise ValueError(f"commit {self.commit!r} is no commit, nor a version of the package such as v0.1.0")


@dataclass(frozen=True, kw_only=True)
class CaseBaseline:
    """The reviewed result of one case on one machine profile."""

    recipe: str
    """Hash of the declared inputs."""
    outcome: Literal["pass", "oom"]
    phase: str | None = None
    """With oom: where it ran out."""
    measured: Provenance
    metrics: dict[str, MetricBaseline]
    history: tuple[str, ...] = ()
    """Why numbers got worse, oldest first."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{8}", self.recipe):
            raise ValueError(f"recipe {self.recipe!r} is no hash of a recipe")
        for name, metric in self.metrics.items():
            _check_metric(name, metric)


def _check_metric(name: str, metric: MetricBaseline) -> None:
    """Raise ValueError for a value that no measurement gives, or tolerances that let everything through."""
    kind = metric_kind(name)
    if kind.is_amount and metric.value <= 0:
        raise ValueError(f"{name} {metric.value:g} is a placeholder, not a measurement")
    for number in filter(None, (metric.value, metric.limit, metric.best)):
        if not kind.is_believable(number):
            raise ValueError(f"{name} {number:g} is more than {kind.most:g} {kind.unit}: it is in another unit")
    widest = {"rel": WIDEST_REL, "abs": kind.widest_abs, "spread": kind.widest_spread(metric.value)}
    for key, most in widest.items():
        if getattr(metric, key) > most:
            raise ValueError(f"{name} {key} {getattr(metric, key):g} lets everything through: {most:g} is the most")


@dataclass(frozen=True, kw_only=True)
class BaselineFile:
    """One file: a machine profile and a tier."""

    machine: dict[str, Any]
    """What the machine is, exactly."""
    cases: dict[str, CaseBaseline] = field(default_factory=dict)

    def __post_init__(self) -> None:
        usable = usable_gib(self.machine)
        for name, case in self.cases.items():
            for metric, entry in case.metrics.items():
                if usable is not None and metric.endswith("vram_gib") and (entry.limit or 0.0) > usable:
                    raise ValueError(
                        f"{name}: {metric} limit {entry.limit:g} is more than the {usable:g} GiB of a card"
                    )


def baseline_path(folder: Path, record: RunRecord) -> Path:
    """The file that holds or would hold the baseline of `record`."""
    return folder / machine_profile_name(machine_identity(record)) / f"{run_name(record.tier)}.toml"


def read_baseline(path: Path) -> BaselineFile:
    """The baselines in a file.

    Raises:
        BadData: unreadable, unknown keys, or values that no measurement gives; names file and key.
    """
    return baselines_of(strict.read_toml(path), str(path))


def baselines_of(tables: dict[str, Any], where: str) -> BaselineFile:
    """The baselines in a file's tables; raises BadData as `read_baseline` does."""
    machine = tables.get(MACHINE)
    if not isinstance(machine, dict):
        raise BadData(f"{where}: table 'machine' is missing", "run again with --baseline-update")
    cases = {name: _read_case(table, f"{where}: {name}") for name, table in tables.items() if name != MACHINE}
    try:
        return BaselineFile(machine=machine, cases=cases)
    except ValueError as error:
        raise BadData(f"{where}: {error}", "give the card's usable memory, or less") from error


def find_case(folder: Path, record: RunRecord) -> CaseBaseline | None:
    """The baseline of exactly this case on exactly this machine; None if there is none."""
    path = baseline_path(folder, record)
    if not path.exists():
        return None
    found = read_baseline(path)
    if found.machine != machine_identity(record):
        raise BadData(f"{path}: table 'machine' is of another machine", "move the file, or run --baseline-update")
    return found.cases.get(record.case)


def render(file: BaselineFile) -> str:
    """The text of a file: the same for the same values, one value a line, sections and metrics sorted."""
    lines = [
        "# Reviewed like code: see baselines/README.md. Written by pytest --baseline-update.",
        "",
        f"[{MACHINE}]",
    ]
    lines += [f"{_key(key)} = {_toml(value)}" for key, value in sorted(file.machine.items())]
    for name, case in sorted(file.cases.items()):
        lines += ["", f"[{_toml(name)}]", *_case_lines(case)]
    return "\n".join(lines) + "\n"


def _case_lines(case: CaseBaseline) -> list[str]:
    measured = {name: getattr(case.measured, name) for name in ("commit", "date", "torch", "run")}
    lines = [f'recipe = "{case.recipe}"', f'outcome = "{case.outcome}"']
    lines += [f"phase = {_toml(case.phase)}"] if case.phase is not None else []
    lines.append(f"measured = {_inline(measured)}")
    lines += [f"{_key(name)} = {_metric_text(metric)}" for name, metric in sorted(case.metrics.items())]
    if case.history:
        lines += ["history = [", *(f"    {_toml(line)}," for line in case.history), "]"]
    return lines


def _metric_text(metric: MetricBaseline) -> str:
    values = {key: getattr(metric, key) for key in ("value", "spread", "n", "rel", "abs", "limit", "best")}
    return _inline({key: value for key, value in values.items() if value is not None})


def _inline(values: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in values.items()) + " }"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    """A string, whole number, real number or date as TOML."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for what JSON leaves alone and TOML forbids, and for surrogate pairs.
        text = json.dumps(value, ensure_ascii=False)
        return re.sub(r"[\x7f-\x9f\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)
    return value.isoformat() if isinstance(value, date) else str(value)


def _read_case(table: Any, where: str) -> CaseBaseline:
    """Every key of a case that is not one of CaseBaseline's own is a metric."""
    if not isinstance(table, dict):
        raise BadData(f"{where}: {table!r} is not a table", "restore the file from version control")
    fields = {key: value for key, value in table.items() if key in OWN_KEYS}
    others = {key: value for key, value in table.items() if key not in OWN_KEYS}
    return strict.build(CaseBaseline, fields | {"metrics": others}, where)
