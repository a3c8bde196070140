"""Numbers over a history: beside a run, or a page of all machines and cases.

python -m suites.harness.report.html_trends HISTORY FILE
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from liveavatar_core.errors import BadInput, LiveAvatarError
from liveavatar_core.files import write_atomically
from suites.harness.records.history import POINTS, HistoryEntry, fence, read_history
from suites.harness.report.html_markup import Markup, tag
from suites.harness.report.html_page import page
from suites.harness.report.html_seconds import trend
from suites.harness.verdicts.metrics import metric_kind

TRENDS = frozenset({"peak_vram_gib", "seconds_per_clip", "predicted_seconds_per_clip"})
"""Metrics that are always drawn over time; others are where they fall out of their fence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page of a history; 2 where it cannot be read or written."""
    parser = argparse.ArgumentParser(
        prog="python -m suites.harness.report.html_trends", description="Numbers of every machine and case over time."
    )
    parser.add_argument("history", type=Path, metavar="HISTORY", help="a folder that --history named")
    parser.add_argument("page", type=Path, metavar="FILE", help="the page to write")
    options = parser.parse_args(arguments)
    try:
        entries, unreadable = read_history(options.history)
        if not entries:
            raise BadInput(f"{options.history} holds no history", "give a folder that --history named")
        write_atomically(options.page, render_trends(entries))
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.page}: {len(entries)} runs" + (f", {len(unreadable)} files unreadable" if unreadable else ""))
    return 0


def render_trends(entries: Sequence[HistoryEntry]) -> str:
    """The page: a section for each machine, an article for each case on it, the newest series of each."""
    head = tag(
        "header",
        tag("p", "Live Avatar: night after night", class_="kicker"),
        tag("h1", f"{len(entries)} runs from {entries[0].day} to {entries[-1].day}"),
    )
    ordered = sorted(entries, key=lambda entry: (entry.machine, entry.tier, entry.case, entry.kept_at))
    sections = [_machine(name, list(group)) for name, group in groupby(ordered, key=lambda entry: entry.machine)]
    return page("Live Avatar: history", [head, tag("main", *sections)])


def _machine(name: str, entries: Sequence[HistoryEntry]) -> Markup:
    cases = groupby(entries, key=lambda entry: (entry.tier, entry.case))
    articles = [_case(f"{tier}/{case}", list(group), f"{name}-{tier}-{case}") for (tier, case), group in cases]
    return tag("section", tag("h2", name), *articles)


def _case(title: str, entries: Sequence[HistoryEntry], key: str) -> Markup:
    newest = entries[-1]
    series = [entry for entry in entries if entry.series == newest.series]
    charts = list(trends(series, key))
    ending = f"last run {newest.day}, {newest.outcome}, verdict {newest.verdict}"
    text = f"{ending}; {len(series)} runs of recipe {newest.recipe}"
    return tag("article", tag("h3", title), tag("p", text), tag("div", *charts, class_="charts"), class_="run")


def trends(series: Sequence[HistoryEntry], key: str) -> Iterator[Markup]:
    """Charts of a series, oldest first, once there are two, with the fence that is drawn from those before the last."""
    for number, name in enumerate(series[-1].metrics if len(series) > 1 else ()):
        values = [(entry.day, entry.metrics[name]) for entry in series if name in entry.metrics]
        before = [value for _, value in values[:-1]]
        limits = fence(before) if len(before) >= POINTS else None
        outside = limits is not None and not limits[0] <= values[-1][1] <= limits[1]
        if len(values) > 1 and (name in TRENDS or outside):
            yield trend(f"{metric_kind(name).heading}, over time", values, f"{key}-trend-{number}", limits)


if __name__ == "__main__":
    sys.exit(main())
