"""Two records, or two report folders, side by side: python -m suites.harness.report.compare_runs A B.

Free of torch. Exit status 2 where A or B cannot be read.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from liveavatar_core.errors import LiveAvatarError
from liveavatar_core.files import write_atomically
from suites.harness.report.comparison import ComparedValue, Comparison, Pair, compare_paths
from suites.harness.report.html_markup import Markup, tag
from suites.harness.report.html_page import page
from suites.harness.report.html_tables import table
from suites.harness.report.terminal_table import render_table
from suites.harness.verdicts.verdict import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison, and write its page where one is asked for; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        found = compare_paths(options.a, options.b)
        if options.html is not None:
            write_atomically(options.html, render_comparison(found, options.a.name, options.b.name))
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    for line in comparison_lines(found, every=options.all, width=shutil.get_terminal_size().columns):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m suites.harness.report.compare_runs",
        description="Two runs side by side: memory by rank, phase and category; seconds; quality.",
    )
    parser.add_argument("a", type=Path, metavar="A", help="a run record, or a report folder")
    parser.add_argument("b", type=Path, metavar="B", help="another of the same kind")
    parser.add_argument("--all", action="store_true", help="show what is alike too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of everything")
    return parser


def comparison_lines(found: Comparison, *, every: bool = False, width: int = 80) -> Iterator[str]:
    """What differs, a table a run; with `every`, what is alike too."""
    for pair in found.pairs:
        rows = pair.rows if every else pair.moved
        yield f"{printable(pair.title)}: {_count(pair)}"
        if rows:
            cells = [tuple(map(printable, (row.group, row.name, *row.cells))) for row in rows]
            yield from render_table(("", "", "A", "B", "difference"), cells, width)
        yield ""
    yield from map(printable, found.alone)


def _count(pair: Pair) -> str:
    alike = len(pair.rows) - len(pair.moved)
    return f"{len(pair.moved)} values differ, {alike} are alike" if pair.moved else f"all {alike} values are alike"


def render_comparison(found: Comparison, first: str, second: str) -> str:
    """The page: what differs of each run, and folded what is alike."""
    title = f"{first} against {second}"
    head = tag(
        "header",
        tag("p", "Live Avatar: two runs side by side", class_="kicker"),
        tag("h1", title),
        tag("p", f"A is {first}, B is {second}.", class_="quiet"),
        *(tag("p", text, class_="next") for text in found.alone),
    )
    return page(title, [head, tag("main", *map(_section, found.pairs))])


def _section(pair: Pair) -> Markup:
    alike = [row for row in pair.rows if not row.moved]
    groups = [_table(name, list(rows)) for name, rows in groupby(pair.moved, key=lambda row: row.group)]
    same = table(("What", "Both"), [(f"{row.group}: {row.name}", row.cells[0]) for row in alike])
    return tag(
        "article",
        tag("h2", pair.title),
        tag("p", f"{_count(pair)}."),
        *groups,
        tag("details", tag("summary", f"{len(alike)} values that are alike"), same) if alike else None,
        class_="run",
    )


def _table(name: str, rows: Sequence[ComparedValue]) -> Markup:
    titles = (name.capitalize(), "A", "B", "Difference")
    return table(titles, [(row.name, *row.cells) for row in rows], class_="compared")


if __name__ == "__main__":
    sys.exit(main())
