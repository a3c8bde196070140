"""The runs of many machines as one page: python -m suites.harness.report.fleet REPORT... --html FILE.

Judges each record again by the baselines of its machine. Free of torch. Exit status: that of the gravest verdict, as a
session's; 2 where a folder holds no record or one cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from liveavatar_core.errors import BadInput, LiveAvatarError
from suites.harness.cases.tiers import Tier, read_tiers
from suites.harness.pytest_plugin.options import SHIPPED_BASELINES, Settings
from suites.harness.pytest_plugin.session import Result
from suites.harness.records.record import read_record
from suites.harness.report.html import write_html
from suites.harness.report.terminal import render
from suites.harness.verdicts.judge import judge
from suites.harness.verdicts.verdict import exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and print the table; returns the exit status."""
    options = _parser().parse_args(arguments)
    settings = _settings(options)
    try:
        tiers = read_tiers(*options.tiers)
        results = [result for folder in options.reports for result in _judged(folder, tiers, settings)]
        write_html(options.html, results, tiers, settings)
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(render(results, (), width=80)))
    failing = [each.judgement for each in results if each.judgement.failing]
    verdicts = {finding.verdict for each in failing for finding in each.findings if finding.fails}
    return exit_code(verdicts) if verdicts else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m suites.harness.report.fleet", description="The runs of many machines as one page."
    )
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="folders that --report-dir named")
    parser.add_argument("--html", type=Path, required=True, metavar="FILE", help="the page to write")
    parser.add_argument("--tiers", action="append", type=Path, default=[], metavar="FILE", help="more tiers")
    parser.add_argument("--baseline-dir", type=Path, default=SHIPPED_BASELINES, metavar="DIR", help="(baselines)")
    parser.add_argument("--history", type=Path, metavar="DIR", help="draw trends over it")
    return parser


def _judged(folder: Path, tiers: Mapping[str, Tier], settings: Settings) -> Iterator[Result]:
    paths = sorted((folder / "records").glob("*.json"))
    if not paths:
        raise BadInput(f"{folder} holds no run record", "give folders that --report-dir named")
    for record in map(read_record, paths):
        if record.tier not in tiers:
            raise BadInput(f"{folder}: there is no tier {record.tier!r}", "give --tiers the file that has it")
        expected = tiers[record.tier].case(record.case).expect
        yield Result(record=record, judgement=judge(record, expected, settings), report_dir=folder)


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        hardware=(),
        tiers=tuple(options.tiers),
        baseline_dir=options.baseline_dir,
        report_dir=options.html.parent,
        history=options.history,
    )


if __name__ == "__main__":
    sys.exit(main())
