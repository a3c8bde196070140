"""Changes of a baseline that need a reason, and the lines of its history that give one: a line a change."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

from suites.harness.verdicts.baselines import CaseBaseline, MetricBaseline
from suites.harness.verdicts.metrics import worsening

LOST = "lost"
"""What a value became that is compared no more."""
LINE = re.compile(r"\d{4}-\d{2}-\d{2}(?: [0-9a-f]{7,40}\+?)?: (?P<change>\S+ \S+ -> \S+): (?P<reason>\S.*)")
"""A line of a history: date, commit where it is of a measurement, `metric before -> after`, and why."""


def change_text(what: str, before: object, after: object) -> str:
    """A change as histories name it: `peak_vram_gib 20 -> 21`."""
    return f"{what} {_text(before)} -> {_text(after)}"


def reason_line(day: date, commit: str, change: str, reason: str) -> str:
    """The line of a history that explains one change."""
    return f"{day} {commit}: {change}: {reason}"


def reasons_of(lines: Iterable[str]) -> dict[str, str]:
    """Reasons by the change that they are for; lines that are no reasons are left out."""
    found = (LINE.fullmatch(line) for line in lines)
    return {match["change"]: match["reason"] for match in found if match is not None}


def what_got_worse(old: CaseBaseline, fresh: CaseBaseline) -> dict[str, str]:
    """What of `fresh` needs a reason, by metric: worse by more than its spread, crept too far, or lost."""
    worse = {}
    if old.outcome == "pass" and fresh.outcome == "oom":
        worse["outcome"] = change_text("outcome", "pass", "oom")
    for name, before in sorted(old.metrics.items()):
        after = fresh.metrics.get(name)
        if after is None:
            worse[name] = change_text(name, before.value, LOST)
        elif worsening(name, before.value, after.value) > before.spread:
            worse[name] = change_text(name, before.value, after.value)
        elif worsening(name, before.best_value, after.value) > allowed_creep(before):
            worse[name] = change_text(name, before.best_value, after.value)
    return worse


def changes_of(old: CaseBaseline | None, new: CaseBaseline) -> list[str]:
    """Every value that an update moves, adds or drops, as histories name changes."""
    before = {name: metric.value for name, metric in old.metrics.items()} if old else {}
    after = {name: metric.value for name, metric in new.metrics.items()}
    ending = [change_text("outcome", old.outcome, new.outcome)] if old and old.outcome != new.outcome else []
    recipe = [change_text("recipe", old.recipe, new.recipe)] if old and old.recipe != new.recipe else []
    values = [
        change_text(name, before.get(name), after.get(name, LOST))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    return [*ending, *recipe, *values]


def allowed_creep(baseline: MetricBaseline) -> float:
    """How far a value may drift by small steps, in the metric's unit, since a reason was last given."""
    return max(baseline.rel * abs(baseline.best_value), baseline.abs, baseline.spread)


def next_best(name: str, old: MetricBaseline, value: float, *, explained: bool) -> float | None:
    """What an update to `value` has as `best`: None, where that is the value itself."""
    if explained or worsening(name, old.best_value, value) <= 0:
        return None
    return old.best_value


def _text(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
