"""Two runs side by side, in numbers: memory by rank, phase and category; seconds; quality. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liveavatar_core.errors import GIB, BadInput
from liveavatar_core.scopes import CATEGORIES, PHASES
from suites.harness.records.record import RunRecord, read_record
from suites.harness.report.figures import name_of, ranks_text
from suites.harness.verdicts.metrics import metric_kind
from suites.harness.verdicts.stats import summarise
from suites.harness.verdicts.timings import part_name, time_samples

Key = tuple[str, str, str]
"""Tier, case and hardware mode: what makes two records runs of one thing."""
ABSENT = "–"


@dataclass(frozen=True, kw_only=True)
class ComparedValue:
    """One number, or one word, of two runs."""

    group: str
    """What it is about: ending, settings, machine, memory, seconds, quality."""
    name: str
    """What it is, with its unit."""
    before: float | str | None
    """In the first run; None: it has none."""
    after: float | str | None
    """In the second run."""

    @property
    def moved(self) -> bool:
        """Whether the two differ."""
        return self.before != self.after

    @property
    def cells(self) -> tuple[str, str, str]:
        """Both values, and by how much the second differs."""
        return _text(self.before), _text(self.after), self._difference()

    def _difference(self) -> str:
        before, after = self.before, self.after
        if not self.moved or not isinstance(before, float) or not isinstance(after, float):
            return ""
        share = f" ({after / before - 1:+.1%})" if before else ""
        return f"{after - before:+.4g}{share}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two runs and all that can be said of both."""

    first: RunRecord
    second: RunRecord
    rows: tuple[ComparedValue, ...]
    """Every row, alike or not."""

    @property
    def title(self) -> str:
        """What ran: one name, or both where they differ."""
        names = [" ".join(key_of(each)) for each in (self.first, self.second)]
        return names[0] if names[0] == names[1] else " against ".join(names)

    @property
    def moved(self) -> tuple[ComparedValue, ...]:
        """The rows that differ."""
        return tuple(row for row in self.rows if row.moved)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two records, or two sessions."""

    pairs: tuple[Pair, ...]
    """Runs that are in both."""
    alone: tuple[str, ...]
    """Runs that are in one only, with which."""


def key_of(record: RunRecord) -> Key:
    """Tier, case and hardware mode of a record."""
    return record.tier, record.case, record.hardware


def compare_paths(first: Path, second: Path) -> Comparison:
    """Two records, whatever they are of; or the runs of two report folders that have the same tier, case and mode.

    Raises:
        BadInput: a record against a folder, a folder without records, or nothing there.
        BadData: a record cannot be read.
    """
    if first.is_file() and second.is_file():
        return Comparison(pairs=(pair(read_record(first), read_record(second)),), alone=())
    before, after = _session(first), _session(second)
    pairs = tuple(pair(before[key], after[key]) for key in before if key in after)
    alone = [f"{' '.join(key)}: in {first} only" for key in before if key not in after]
    alone += [f"{' '.join(key)}: in {second} only" for key in after if key not in before]
    return Comparison(pairs=pairs, alone=tuple(alone))


def _session(folder: Path) -> Mapping[Key, RunRecord]:
    """The records of a report folder, or of the folder `records` in it."""
    if not folder.is_dir():
        what = "a record, and the other is a folder" if folder.is_file() else "neither a record nor a folder"
        raise BadInput(f"{folder} is {what}", "give two records, or two folders that --report-dir named")
    paths = sorted((folder / "records").glob("*.json")) or sorted(folder.glob("*.json"))
    if not paths:
        raise BadInput(f"{folder} holds no run record", "give a folder that --report-dir named")
    return {key_of(record): record for record in map(read_record, paths)}


def pair(first: RunRecord, second: RunRecord) -> Pair:
    """All that can be said of two runs."""
    rows = (
        *_rows("ending", _ending(first), _ending(second)),
        *_rows("settings", _flat(first.recipe.declared), _flat(second.recipe.declared)),
        *_rows("machine", _machine(first), _machine(second)),
        *_memory_rows(first, second),
        *_rows("seconds", _seconds(first), _seconds(second)),
        *_rows("quality", _quality(first), _quality(second)),
    )
    return Pair(first=first, second=second, rows=rows)


Values = Mapping[str, float | str | None]


def _rows(group: str, before: Values, after: Values) -> Iterator[ComparedValue]:
    for name in dict.fromkeys([*before, *after]):
        yield ComparedValue(group=group, name=name, before=before.get(name), after=after.get(name))


def _ending(record: RunRecord) -> Values:
    short = record.out_of_memory
    where = f" in {short.phase} for {name_of(short.category)}, rank {short.rank}" if short else ""
    lacking = short.shortfall / GIB if short and short.shortfall is not None else None
    return {"ends in": name_of(record.outcome) + where} | ({"lacking, GiB": lacking} if short else {})


def _machine(record: RunRecord) -> Values:
    values = ((name.replace("_", " "), value) for name, value in asdict(record.machine).items())
    facts = {name: None if value is None else str(value) for name, value in values}
    limit = {} if record.limit_bytes is None else {"limit, GiB": record.limit_bytes / GIB}
    nccl = {}
    if record.nccl is not None:
        ways = {f"NCCL, {way}, channels": float(count) for way, count in record.nccl.transports.items()}
        nccl = {"NCCL": record.nccl.version, **ways, "NCCL, warnings": float(len(record.nccl.warnings))}
    return {"commit": record.commit, "date": record.date.isoformat(), **facts, **nccl, **limit}


def _flat(declared: Mapping[str, Any], prefix: str = "") -> Values:
    """Declared inputs by their path, as text."""
    found: dict[str, float | str | None] = {}
    for name, value in declared.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(value)
    return found


Place = tuple[str, str]
"""A phase and a category; an empty category: all of them."""


def _memory_rows(first: RunRecord, second: RunRecord) -> Iterator[ComparedValue]:
    """The peak of each phase, and what it was made of; ranks of which both runs say the same share a row."""
    before, after = _memory(first), _memory(second)
    for phase, category in sorted(before.keys() | after.keys(), key=_place_order):
        held = before.get((phase, category), {}), after.get((phase, category), {})
        groups: dict[tuple[float | None, float | None], list[int]] = {}
        for rank in sorted(held[0].keys() | held[1].keys()):
            groups.setdefault((held[0].get(rank), held[1].get(rank)), []).append(rank)
        what = f"{phase}, {name_of(category)}" if category else phase
        for values, ranks in groups.items():
            if not any(values):
                continue  # nothing of this category was ever held
            name = f"{ranks_text(ranks)}, {what}, GiB"
            yield ComparedValue(group="memory", name=name, before=values[0], after=values[1])


def _place_order(place: Place) -> tuple[int, int]:
    """Phases as they follow on each other; in each the whole first, then categories as charts stack them."""
    phase, category = place
    return PHASES.index(phase), (*CATEGORIES, category).index(category) if category else -1


def _memory(record: RunRecord) -> dict[Place, dict[int, float]]:
    """GiB at the fullest moment of each phase, by rank."""
    found: dict[Place, dict[int, float]] = {}
    for reading in record.memory:
        sizes = {"": reading.allocated_bytes, **(reading.by_category or {})}
        for category, size in sizes.items():
            if size is not None:
                found.setdefault((reading.phase, category), {})[reading.rank] = size / GIB
    return found


def _seconds(record: RunRecord) -> Values:
    timing = record.timing
    named = {metric_kind(name).heading: summarise(samples).value for name, samples in time_samples(timing).items()}
    predicted = {
        "first clip, predicted, s": timing.predicted_first_clip_seconds,
        "a clip, predicted, s": timing.predicted_seconds_per_clip,
    }
    named |= {name: value for name, value in predicted.items() if value is not None}
    for part, seconds in timing.predicted_seconds_by_part.items():
        named[f"{metric_kind(part_name(part)).heading}, predicted"] = seconds
    found: dict[str, float | str | None] = dict(named)
    for role in record.simulated_roles:
        parts = role.predicted_seconds_by_kind.items()
        found |= {f"{ranks_text([role.rank])}, predicted, {kind.replace('_', ' ')}, s": value for kind, value in parts}
    return found


def _quality(record: RunRecord) -> Values:
    named: dict[str, float | str | None] = {}
    for name, value in record.quality.items():
        unit = metric_kind(name).unit
        named[f"{metric_kind(name).title} ({name}){f', {unit}' if unit else ''}"] = value
    return named


def _text(value: float | str | None) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ABSENT if value is None else value
