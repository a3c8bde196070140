"""What differs between the baselines of two commits, and what each difference is worth. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ci.revisions import Baselines
from suites.harness.verdicts.baselines import BaselineFile, CaseBaseline, MetricBaseline
from suites.harness.verdicts.compare import allowed_change, judge_change
from suites.harness.verdicts.reasons import reasons_of, what_got_worse
from suites.harness.verdicts.verdict import Verdict

T = TypeVar("T")
TOLERANCES = ("rel", "abs", "limit")
"""Keys of a metric that people set and updates never touch."""
PROVENANCE = ("torch",)
"""Keys of a measurement's origin that tell a change of environment; commit, date and run change with every one."""


@dataclass(frozen=True, kw_only=True)
class Altered:
    """Something beside a value that differs."""

    where: str
    """File and case."""
    what: str
    """The part of the entry that differs."""
    old: str
    new: str
    note: str = ""
    """The meaning of the change, such as `loosened`; empty where it speaks for itself."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A value that differs."""

    where: str
    """File and case."""
    metric: str
    """Name of the metric, which carries its unit."""
    old: float
    new: float
    allowed: float
    """How much might have differed by the old tolerances."""
    verdict: Verdict
    """The verdict by the old tolerances and the old limit: new ones are judged by people first."""
    reason: str = ""
    """The line of the case's history that explains this change; empty without one."""


@dataclass(kw_only=True)
class Changes:
    """All that differs between the baselines of two commits."""

    tolerances: list[Altered] = field(default_factory=list)
    environment: list[Altered] = field(default_factory=list)
    cases: list[Altered] = field(default_factory=list)
    """Cases that came or went, and those with another recipe or ending."""
    values: list[Moved] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    """`file: case: metric` of every value that stayed."""


def changes_between(base: Baselines, head: Baselines) -> Changes:
    """All that `head` has otherwise than `base`; files that cannot be read are left to the lint."""
    found = Changes()
    readable = {path for path in base.files | head.files if path not in base.broken and path not in head.broken}
    for path, old, new in _pairs(base.files, head.files):
        if path in readable:
            _compare_files(path, old, new, found)
    found.values.sort(key=lambda moved: -list(Verdict).index(moved.verdict))
    return found


def _compare_files(path: str, old: BaselineFile | None, new: BaselineFile | None, found: Changes) -> None:
    if old is None or new is None:
        word = ("absent", "new machine or tier") if old is None else ("there", "deleted")
        found.environment.append(Altered(where=path, what="file", old=word[0], new=word[1]))
    else:
        found.environment += [
            Altered(where=path, what=f"machine.{key}", old=_text(before), new=_text(after))
            for key, before, after in _pairs(old.machine, new.machine)
            if before != after
        ]
    for name, before, after in _pairs(old.cases if old else {}, new.cases if new else {}):
        _compare_cases(f"{path}: {name}", before, after, found)


def _compare_cases(where: str, old: CaseBaseline | None, new: CaseBaseline | None, found: Changes) -> None:
    if old is None or new is None:
        here = old or new
        count = f"{len(here.metrics) if here else 0} values"
        old_text, new_text = ("", count) if old is None else (count, "")
        note = "first baseline" if old is None else "nothing is compared any more"
        found.cases.append(Altered(where=where, what="case", old=old_text, new=new_text, note=note))
        return
    found.cases += _declared(where, old, new)
    found.environment += [
        Altered(where=where, what=f"measured.{name}", old=before, new=after)
        for name in PROVENANCE
        if (before := getattr(old.measured, name)) != (after := getattr(new.measured, name))
    ]
    reasons, worse = reasons_of(new_history(old, new)), what_got_worse(old, new)
    for name, before, after in _pairs(old.metrics, new.metrics):
        _compare_metrics(where, name, before, after, reasons.get(worse.get(name, ""), ""), found)


def _declared(where: str, old: CaseBaseline, new: CaseBaseline) -> list[Altered]:
    """Another recipe or ending: the numbers below it answer another question."""
    notes = {"recipe": "the numbers answer different questions", "outcome": "it ends otherwise", "phase": ""}
    return [
        Altered(where=where, what=key, old=_text(getattr(old, key)), new=_text(getattr(new, key)), note=note)
        for key, note in notes.items()
        if getattr(old, key) != getattr(new, key)
    ]


def _compare_metrics(
    where: str, name: str, old: MetricBaseline | None, new: MetricBaseline | None, reason: str, found: Changes
) -> None:
    if old is None or new is None:
        note = "first value" if old is None else "not compared any more"
        texts = [f"{each.value:g}" if each else "" for each in (old, new)]
        found.cases.append(Altered(where=where, what=name, old=texts[0], new=texts[1], note=note))
        return
    found.tolerances += [
        Altered(where=where, what=f"{name}.{key}", old=_text(before), new=_text(after), note=direction(before, after))
        for key in TOLERANCES
        if (before := getattr(old, key)) != (after := getattr(new, key))
    ]
    if old.value == new.value:
        found.unchanged.append(f"{where}: {name}")
        return
    verdict = judge_change(name, new.summary, old)
    if old.limit is not None and new.value > old.limit:
        verdict = Verdict.OVER_LIMIT
    found.values.append(
        Moved(
            where=where,
            metric=name,
            old=old.value,
            new=new.value,
            allowed=allowed_change(old),
            verdict=verdict,
            reason=reason,
        )
    )


def direction(old: float | None, new: float | None) -> str:
    """`loosened` where more is allowed now than before, else `tightened`. No limit allows anything."""
    before, after = (float("inf") if each is None else each for each in (old, new))
    return "loosened" if after > before else "tightened"


def new_history(old: CaseBaseline, new: CaseBaseline) -> tuple[str, ...]:
    """Lines that the history gained at its end."""
    return new.history[len(old.history) :]


def _pairs(old: dict[str, T], new: dict[str, T]) -> Iterator[tuple[str, T | None, T | None]]:
    for key in sorted(old.keys() | new.keys()):
        yield key, old.get(key), new.get(key)


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
