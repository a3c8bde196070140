"""What is wrong with the baselines of a commit, whatever their values. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from ci.baseline_changes import TOLERANCES, direction, new_history
from ci.revisions import Baselines
from suites.harness.records.machine_identity import machine_profile_name
from suites.harness.verdicts.baselines import BaselineFile, CaseBaseline, render
from suites.harness.verdicts.index import INDEX_FILE
from suites.harness.verdicts.metrics import WITHOUT_UNIT, metric_kind
from suites.harness.verdicts.reasons import change_text, next_best, reasons_of, what_got_worse


@dataclass(frozen=True, kw_only=True)
class Objection:
    """One thing that a reviewer should not have to look for."""

    where: str
    """File, and case where it is about one."""
    what: str
    """The two halves of the objection: what was found against what is allowed."""
    next_step: str
    """The change that settles it."""
    fails: bool = True
    """Whether it must be put right before merging."""


def lint(base: Baselines, head: Baselines) -> list[Objection]:
    """Objections to `head`, as changed from `base`."""
    found = [
        Objection(where=path, what=why, next_step="restore the file, or measure again with --baseline-update")
        for path, why in head.broken.items()
    ]
    found += _index(head)
    for path, file in head.files.items():
        found += _form(path, file, head.texts[path])
        before = base.files.get(path)
        for name, case in file.cases.items():
            where = f"{path}: {name}"
            found += [*_names(where, case), *_origin(where, case)]
            if before is not None and name in before.cases:
                found += _honesty(where, before.cases[name], case)
    return found


def _index(head: Baselines) -> Iterator[Objection]:
    """The index and the files list the same: what only one of them has was lost, or never reviewed."""
    there = {
        f"{path.removesuffix('.toml')}/{name}": tuple(sorted(case.metrics))
        for path, file in head.files.items()
        for name, case in file.cases.items()
    }
    unread = tuple(path.removesuffix(".toml") + "/" for path in head.broken)
    for key in sorted(there.keys() | head.index.keys()):
        if there.get(key) == head.index.get(key) or key.startswith(unread):
            continue
        lost = sorted(set(head.index.get(key, ())) - set(there.get(key, ())))
        what = f"lists {', '.join(lost)}, of which there is no baseline" if lost else "does not list all its metrics"
        step = "restore the baseline, or delete it here too" if lost else "keep what --baseline-update writes"
        yield Objection(where=f"{INDEX_FILE}: {key}", what=what, next_step=step)


def _form(path: str, file: BaselineFile, text: str) -> Iterator[Objection]:
    """Sorted, one value a line, in the folder of its machine."""
    wanted = render(file)
    if text != wanted:
        pairs = zip_longest(text.splitlines(keepends=True), wanted.splitlines(keepends=True), fillvalue="")
        line, found = next((i, pair) for i, pair in enumerate(pairs, 1) if pair[0] != pair[1])
        what = f"line {line} is {found[0]!r} where an update writes {found[1]!r}: not sorted, or written by hand"
        yield Objection(where=path, what=what, next_step="keep the order and form that --baseline-update writes")
    try:
        folder = machine_profile_name(file.machine)
    except KeyError as error:
        yield Objection(where=path, what=f"table 'machine' has no {error}", next_step="measure again")
        return
    if path.split("/")[0] != folder:
        yield Objection(where=path, what=f"its machine belongs in folder {folder}", next_step=f"move it to {folder}/")


def _names(where: str, case: CaseBaseline) -> Iterator[Objection]:
    for name in case.metrics:
        if metric_kind(name) is WITHOUT_UNIT:
            step = "name it after its unit, as peak_vram_gib"
            yield Objection(where=where, what=f"metric {name!r} has no unit in its name", next_step=step)


def _origin(where: str, case: CaseBaseline) -> Iterator[Objection]:
    if case.measured.commit.endswith("+"):
        what = f"measured at {case.measured.commit}: with changes that no commit has"
        yield Objection(where=where, what=what, next_step="commit first, then measure", fails=False)


def _honesty(where: str, old: CaseBaseline, new: CaseBaseline) -> Iterator[Objection]:
    """Objections to numbers that were loosened, got worse or were lost without a line that says why."""
    if new.history[: len(old.history)] != old.history:
        step = "put the old lines back and add to their end"
        yield Objection(where=where, what="history lost or changed a line", next_step=step)
    reasons = reasons_of(new_history(old, new))
    needed = [*_loosened(old, new), *what_got_worse(old, new).values()]
    for change in needed:
        if change not in reasons:
            step = f'add "DATE: {change}: why this is right" to its history, or update with --baseline-reason'
            yield Objection(where=where, what=f"{change}, without a reason of its own", next_step=step)
    for line in new_history(old, new):
        if not any(change in needed for change in reasons_of((line,))):
            step = 'write "DATE: METRIC BEFORE -> AFTER: why" of a change that is there, or delete the line'
            yield Objection(where=where, what=f"history says {line!r}, and nothing such changed", next_step=step)
    yield from _origin_of_values(where, old, new)


def _origin_of_values(where: str, old: CaseBaseline, new: CaseBaseline) -> Iterator[Objection]:
    """Values come from a measurement, and what crept is not forgotten."""
    if old.measured == new.measured and _values(old) != _values(new):
        yield Objection(
            where=where,
            what="values differ, and `measured` says they are of the same run",
            next_step="take values over with --baseline-update only",
        )
    explained = what_got_worse(old, new)
    for name in sorted(old.metrics.keys() & new.metrics.keys()):
        metric = new.metrics[name]
        wanted = next_best(name, old.metrics[name], metric.value, explained=name in explained)
        if metric.best != wanted:
            what = f"{name} has best {metric.best} where an update writes {wanted}"
            yield Objection(where=where, what=what, next_step="take values over with --baseline-update only")


def _loosened(old: CaseBaseline, new: CaseBaseline) -> list[str]:
    """Tolerances and limits that allow more than before, as histories name changes."""
    found = []
    for name in sorted(old.metrics.keys() & new.metrics.keys()):
        for key in TOLERANCES:
            before, after = getattr(old.metrics[name], key), getattr(new.metrics[name], key)
            if before != after and direction(before, after) == "loosened":
                found.append(change_text(f"{name}.{key}", before, after))
    return found


def _values(case: CaseBaseline) -> dict[str, tuple[float, float, int]]:
    return {name: (metric.value, metric.spread, metric.n) for name, metric in case.metrics.items()}
