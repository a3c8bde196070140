"""What a change does, for its pull request: the simulated tiers before and after it, then its baselines.

python -m ci.change_comment BASE HEAD --before REPORT --after REPORT [--link TITLE=URL]

The verdict comes first, then a table of the runs that moved, then everything, folded. Free of torch. Exit status: 0; 1,
where something must be put right before merging; 2, where records or commits cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ci.baseline_changes import changes_between
from ci.baseline_lint import lint
from ci.baseline_render import as_markdown, cell, github_annotations, headline, markdown_table
from ci.revisions import read_revision
from liveavatar_core.errors import GIB, LiveAvatarError
from suites.harness.records.record import RunRecord
from suites.harness.report.comparison import Comparison, Pair, compare_paths
from suites.harness.report.figures import name_of
from suites.harness.verdicts.measured import metrics

MARKER = "<!-- what-this-change-does -->"
"""The line by which the comment of an earlier push is found, and replaced."""
MOST_CHARACTERS = 65_000
"""A comment may have 65,536."""
COLUMNS = ("run", "ends in", "peak of a card", "seconds a clip, predicted", "settings")
OF_THE_MACHINE = "machine"
"""Commit, date and versions differ with every change."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comment; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        found = compare_paths(options.before, options.after) if options.before else None
        base, head = (read_revision(Path(), revision) for revision in (options.base, options.head))
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    changes, objections = changes_between(base, head), lint(base, head)
    parts = [MARKER, f"### {_verdict(found)}", *_runs(found), f"**Baselines: {headline(changes, objections)}**"]
    details = [*(_details(each) for each in _moved(found)), _folded("Baselines", as_markdown(changes, objections))]
    print(fitted(parts, details, _links(options.link)))
    for line in github_annotations(objections, head.texts) if options.annotate else ():
        print(line, file=sys.stderr)
    return int(any(objection.fails for objection in objections))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ci.change_comment", description="What a change does.")
    parser.add_argument("base", metavar="BASE", help="commit that the change is compared with")
    parser.add_argument("head", metavar="HEAD", help="commit of the change")
    parser.add_argument("--before", type=Path, metavar="REPORT", help="report folder of BASE (nothing ran there)")
    parser.add_argument("--after", type=Path, metavar="REPORT", required=True, help="report folder of HEAD")
    parser.add_argument("--annotate", action="store_true", help="tell GitHub what to put right, with file and line")
    parser.add_argument("--link", action="append", default=[], metavar="TITLE=URL", help="where to read on")
    return parser


def _verdict(found: Comparison | None) -> str:
    """In one line, the worst first: endings, then memory, then seconds, then anything."""
    if found is None:
        return "Nothing could be compared: the simulated tiers did not run before this change"
    ended = [pair for pair in found.pairs if pair.first.outcome != pair.second.outcome]
    if ended:
        pair = ended[0]
        more = f", {len(ended) - 1} more end otherwise" if len(ended) > 1 else ""
        return f"{_run(pair)} ends in {name_of(pair.second.outcome)}, not in {name_of(pair.first.outcome)}{more}"
    moved, same = _moved(found), len(found.pairs)
    if not moved and not found.alone:
        return f"No simulated run moves: {same} are the same to the byte"
    came = f", {len(found.alone)} came or went" if found.alone else ""
    growth = max(moved, key=_growth, default=None)
    if growth is not None and _growth(growth) > 0:
        return f"{_run(growth)} needs {_growth(growth) / GIB:.2f} GiB more; {len(moved)} of {same} runs move{came}"
    return f"{len(moved)} of {same} simulated runs move, none needs more memory{came}"


def _runs(found: Comparison | None) -> Iterator[str]:
    """The table of what moved, and the number of runs that did not."""
    if found is None:
        return
    moved = _moved(found)
    if moved:
        yield markdown_table(COLUMNS, [_row(pair) for pair in moved])
    if moved and len(moved) < len(found.pairs):
        yield f"{len(found.pairs) - len(moved)} runs are the same to the byte."
    if found.alone:
        yield "\n".join(f"- {cell(text)}" for text in found.alone)


def _moved(found: Comparison | None) -> list[Pair]:
    """Runs of which more differs than where and when they ran, those that grow most first."""
    pairs = [pair for pair in found.pairs if _rows(pair)] if found else []
    return sorted(pairs, key=lambda pair: (pair.first.outcome == pair.second.outcome, -_growth(pair)))


def _rows(pair: Pair) -> list[tuple[str, ...]]:
    return [(row.group, row.name, *row.cells) for row in pair.moved if row.group != OF_THE_MACHINE]


def _row(pair: Pair) -> tuple[str, ...]:
    before, after = pair.first, pair.second
    settings = [f"{row.name}: {row.cells[0]} -> {row.cells[1]}" for row in pair.moved if row.group == "settings"]
    endings = dict.fromkeys(name_of(each.outcome) for each in (before, after))
    return _run(pair), " -> ".join(endings), _memory(before, after), _seconds(before, after), "; ".join(settings)


def _run(pair: Pair) -> str:
    return f"{pair.second.tier} {pair.second.case}"


def _growth(pair: Pair) -> int:
    """Bytes by which the peak of the fullest card grows."""
    before, after = pair.first.peak_bytes(), pair.second.peak_bytes()
    return 0 if before is None or after is None else after - before


def _memory(before: RunRecord, after: RunRecord) -> str:
    sizes = before.peak_bytes(), after.peak_bytes()
    if sizes[0] is None or sizes[1] is None:
        return ""
    if sizes[0] == sizes[1]:
        return f"{sizes[1] / GIB:.2f} GiB"
    return f"{sizes[0] / GIB:.2f} -> {sizes[1] / GIB:.2f} GiB ({sizes[1] - sizes[0]:+,} bytes)"


def _seconds(before: RunRecord, after: RunRecord) -> str:
    values = [metrics(each).get("predicted_seconds_per_clip") for each in (before, after)]
    if values[0] is None or values[1] is None:
        return ""
    first, second = (f"{each.value:.3f}" for each in values if each)
    return second if first == second else f"{first} -> {second} ({values[1].value / values[0].value - 1:+.1%})"


def _details(pair: Pair) -> str:
    names = ("", "", "before", "after", "difference")
    return _folded(f"{_run(pair)}: {len(_rows(pair))} values differ", markdown_table(names, _rows(pair)))


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{cell(title)}</summary>\n\n{text}\n\n</details>"


def _links(links: Sequence[str]) -> str:
    pairs = (link.split("=", 1) for link in links)
    return " · ".join(f"[{cell(title)}]({url})" for title, url in pairs)


def fitted(parts: Sequence[str], details: Sequence[str], links: str) -> str:
    """All parts and as many details as a comment holds; says how many were left out."""
    kept = list(details)
    while True:
        left = len(details) - len(kept)
        note = [f"{left} more tables did not fit here: the job's summary and the page have them."] if left else []
        text = "\n\n".join(filter(None, [*parts, *kept, *note, links]))
        if len(text) <= MOST_CHARACTERS:
            return text
        if not kept:
            return f"{text[: MOST_CHARACTERS - 100]}\n\nCut here: the job's summary has the rest.\n\n{links}"
        kept.pop()


if __name__ == "__main__":
    sys.exit(main())
