"""Differences of baselines as text for a terminal, or as Markdown for a pull request; verdict first. Free of torch."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

from ci.baseline_changes import Altered, Changes, Moved
from ci.baseline_lint import Objection
from suites.harness.verdicts.verdict import Verdict, printable, worst

MARKER = "<!-- baseline-diff -->"
"""The line by which the comment of an earlier run is found, and replaced."""
ALTERED = ("where", "what", "old", "new", "")
MOVED = ("where", "metric", "old", "new", "delta", "tolerance", "verdict", "reason")
UNEXPLAINED = "no reason given"

Table = tuple[str, Sequence[str], list[tuple[str, ...]]]
"""Title, columns, rows."""


def as_text(changes: Changes, objections: list[Objection]) -> str:
    """The changes for a terminal: columns of equal width."""
    parts = [headline(changes, objections)]
    parts += [f"{each.where}: {each.what}\nnext: {each.next_step}" for each in objections]
    parts += [f"{title}\n{_columns(names, rows)}" for title, names, rows in _tables(changes)]
    if changes.unchanged:
        parts.append(f"unchanged: {len(changes.unchanged)} values")
    return "\n\n".join("\n".join(printable(line) for line in part.splitlines()) for part in parts)


def as_markdown(changes: Changes, objections: list[Objection]) -> str:
    """The changes for a pull request: tables in Markdown; of what stayed, the number alone."""
    parts = [MARKER, f"### Baselines: {headline(changes, objections)}"]
    if objections:
        parts.append("\n".join(f"- {cell(each.where)}: {cell(each.what)}. {_next(each)}" for each in objections))
    parts += [f"**{title}**\n\n{markdown_table(names, rows)}" for title, names, rows in _tables(changes)]
    return "\n\n".join(parts)


def github_annotations(objections: list[Objection], texts: Mapping[str, str]) -> list[str]:
    """The objections as GitHub shows them beside the lines that they are about. `texts`: baseline files, by path."""
    return [_annotation(each, texts) for each in objections]


def _annotation(objection: Objection, texts: Mapping[str, str]) -> str:
    path, _, case = objection.where.partition(": ")
    level = "error" if objection.fails else "warning"
    place = f"file=baselines/{path},line={_line_of(texts.get(path, ''), case, objection.what)}"
    message = f"{objection.what}\nnext: {objection.next_step}".replace("%", "%25").replace("\n", "%0A")
    return f"::{level} {place},title=baseline::{printable(message)}"


def _line_of(text: str, case: str, what: str) -> int:
    """The line of the metric that `what` begins with, else that of the case, else the first."""
    lines = text.splitlines()
    start = next((at for at, line in enumerate(lines) if case and line.strip().strip("[]\"'") == case), 0)
    metric = re.split(r"[ .]", what, maxsplit=1)[0]
    for at, line in enumerate(lines[start + 1 :], start + 1):
        if line.startswith("["):
            break
        if line.startswith(f"{metric} ="):
            return at + 1
    return start + 1


def headline(changes: Changes, objections: list[Objection]) -> str:
    """The verdict, then how much of what."""
    counts = _counts(changes, objections)
    if any(each.fails for each in objections):
        verdict = "to be put right"
    elif changes.values:
        verdict = str(worst(moved.verdict for moved in changes.values))
    else:
        verdict = "to be reviewed" if counts else "unchanged"
    return f"{verdict}: " + ", ".join([*counts, f"{len(changes.unchanged)} values unchanged"])


def _counts(changes: Changes, objections: list[Objection]) -> list[str]:
    verdicts = [moved.verdict for moved in changes.values]
    loosened = sum(each.note == "loosened" for each in changes.tolerances)
    counted = [
        (sum(each.fails for each in objections), "to put right"),
        (sum(not each.fails for each in objections), "to note"),
        (loosened, "tolerances loosened"),
        (len(changes.tolerances) - loosened, "tolerances tightened"),
        (len(changes.environment), "changes of the environment"),
        (len(changes.cases), "changes of cases"),
        *((verdicts.count(verdict), _WORDS[verdict]) for verdict in _WORDS),
    ]
    return [f"{count} {words}" for count, words in counted if count]


_WORDS = {
    Verdict.OVER_LIMIT: "over their limit",
    Verdict.REGRESSED: "regressed",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.IMPROVED: "improved",
    Verdict.PASS: "moved within tolerance",
}


def _tables(changes: Changes) -> list[Table]:
    """Tolerances first: they decide what all other verdicts mean."""
    tables: list[Table] = [
        ("Tolerances", ALTERED, [_altered(each) for each in changes.tolerances]),
        ("Environment", ALTERED, [_altered(each) for each in changes.environment]),
        ("Cases", ALTERED, [_altered(each) for each in changes.cases]),
        ("Values", MOVED, [_moved(each) for each in changes.values]),
    ]
    return [table for table in tables if table[2]]


def _altered(each: Altered) -> tuple[str, ...]:
    return each.where, each.what, each.old, each.new, each.note


def _moved(each: Moved) -> tuple[str, ...]:
    change = each.new - each.old
    share = f" ({change / each.old:+.2%})" if each.old else ""
    worse = each.verdict in (Verdict.REGRESSED, Verdict.OVER_LIMIT)
    reason = each.reason or (UNEXPLAINED if worse else "")
    numbers = f"{each.old:g}", f"{each.new:g}", f"{change:+.6g}{share}", f"{each.allowed:.3g}"
    return each.where, each.metric, *numbers, str(each.verdict), reason


def _columns(names: Sequence[str], rows: list[tuple[str, ...]]) -> str:
    table = [tuple(names), *rows]
    widths = [max(len(row[index]) for row in table) for index in range(len(names))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)


def markdown_table(names: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown; cells are text, whatever they hold."""
    lines = [tuple(names), ("---",) * len(names), *(tuple(map(cell, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Text that stays text, whatever a name in a file holds."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(printable(text), quote=False))


def _next(objection: Objection) -> str:
    word = "next" if objection.fails else "note"
    return f"*{word}:* {cell(objection.next_step)}"
