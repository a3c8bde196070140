"""Claim, our value, mode, verdict and reason of every published figure: python -m suites.published.claims_table.

Exit status: 0; 1 where an answer is not what claim_checks.toml says; 2 where data cannot be read.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from liveavatar_core.errors import BadInput, LiveAvatarError
from suites.harness.verdicts.verdict import printable
from suites.published.check_claims import Answer, answer
from suites.published.evidence import Evidence
from suites.published.figures import read_claim_checks, read_figures

COLUMNS = ("figure", "published", "ours", "mode", "verdict", "claim and reason")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status: 0, 1 where an answer is not as settled, 2 for an unknown figure."""
    options = _parser().parse_args(arguments)
    try:
        answers = find_answers(options.figures, Evidence(options.report_dir))
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    print(as_markdown(answers) if options.markdown else as_text(answers))
    return int(not all(each.as_settled for each in answers))


def find_answers(names: Sequence[str], evidence: Evidence) -> list[Answer]:
    """An answer for each figure named, or for all of them. Raises BadInput for an unknown name."""
    figures, settlements = read_figures(), read_claim_checks()
    for name in names:
        if name not in figures:
            raise BadInput(f"there is no figure {name!r}", f"figures: {', '.join(figures)}")
    return [answer(figures[name], settlements[name], evidence) for name in names or figures]


def as_text(answers: Sequence[Answer]) -> str:
    """The answers for a terminal: the numbers in a line each, claim and reason below."""
    lines = [summary(answers)]
    for each in answers:
        mode = f" ({each.mode})" if each.mode else ""
        changed = "" if each.as_settled else f", and claim_checks.toml says {each.settlement.verdict}"
        lines += ["", f"{each.figure.id}: {each.verdict}{changed}"]
        lines.append(f"  published {each.figure.published}" + (f", ours {each.ours}{mode}" if each.ours else ""))
        lines += textwrap.wrap(each.figure.claim, 112, initial_indent='  "', subsequent_indent="   ")
        lines[-1] += '"'
        lines += textwrap.wrap(f"because {each.settlement.because}", 112, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(map(printable, lines))


def as_markdown(answers: Sequence[Answer]) -> str:
    """The answers for a report: a table in Markdown."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, answers)]
    return f"{summary(answers)}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def summary(answers: Sequence[Answer]) -> str:
    """The number of answers with each verdict, in a line."""
    verdicts = [each.verdict for each in answers]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in ("agree", "disagree", "not testable")]
    surprises = sum(not each.as_settled for each in answers)
    return f"{len(answers)} published figures: {', '.join(counts)}" + (
        f"; {surprises} not as settled" * bool(surprises)
    )


def _cells(each: Answer) -> tuple[str, ...]:
    text = f"{each.figure.claim}. {each.verdict.capitalize()}: {each.settlement.because}"
    cells = (each.figure.id, each.figure.published, each.ours, each.mode, each.verdict, text)
    return tuple(cell.replace("|", "\\|") for cell in cells)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m suites.published.claims_table", description="Published figures beside ours."
    )
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="ids of figures (all of them)")
    parser.add_argument("--markdown", action="store_true", help="as a table in Markdown")
    help_text = "records of this commit are read there, others are made and put there (report)"
    parser.add_argument("--report-dir", type=Path, default=Path("report"), metavar="DIR", help=help_text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
