"""What a test session gathers from its tests, in the process that reports."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from liveavatar_core.errors import BadData
from suites.harness.cases.tiers import Tier
from suites.harness.pytest_plugin.options import Settings
from suites.harness.pytest_plugin.tier_runner import JUDGEMENT, LOST, RECORD
from suites.harness.records.history import append_history, outliers, read_history
from suites.harness.records.record import RunRecord, read_record
from suites.harness.verdicts.baselines import baseline_path, read_baseline
from suites.harness.verdicts.index import read_index
from suites.harness.verdicts.judge import WAIVERS_FILE, Judgement, judgement_from_data, write_baseline
from suites.harness.verdicts.verdict import Verdict, exit_code
from suites.harness.verdicts.waivers import applies, excuses, read_waivers


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run and what is thought of it."""

    record: RunRecord
    judgement: Judgement


@dataclass(kw_only=True)
class Session:
    """Everything known so far."""

    settings: Settings
    tiers: dict[str, Tier]
    results: list[Result] = field(default_factory=list)
    failures: int = 0
    """Failed tests, whatever failed them."""
    lost: int = 0
    """Runs whose record could not be written."""
    out_of_trend: list[str] = field(default_factory=list)
    """Values that fall out of their history. Two lines each."""

    doing: str = ""
    """What the running test does at this moment."""

    def tell(self, doing: str) -> None:
        """Take note of what the running test does now."""
        self.doing = doing

    def add(self, properties: Iterable[tuple[str, object]]) -> None:
        """Take the runs out of a test's properties."""
        self.doing = ""
        values = list(properties)
        self.lost += sum(name == LOST for name, _ in values)
        paths = [str(value) for name, value in values if name == RECORD]
        judgements = [str(value) for name, value in values if name == JUDGEMENT]
        for path, judgement in zip(paths, judgements, strict=True):
            data = judgement_from_data(json.loads(judgement))
            self.results.append(Result(record=read_record(Path(path)), judgement=data))

    def finish(self) -> None:
        """Write the baselines that are to be updated, and the history."""
        for result in self.results:
            if result.judgement.update:
                write_baseline(result.record, self.settings)
        if self.settings.history is not None:
            history = read_history(self.settings.history)
            self.out_of_trend = [text for each in self.results for text in outliers(each.record, history)]
            append_history(self.settings.history, ((each.record, each.judgement.verdict) for each in self.results))

    def exit_code(self) -> int:
        """The exit status of a session in which tests failed: by verdict, if they are all of one kind."""
        failed = [result.judgement for result in self.results if result.judgement.failing]
        if len(failed) + self.lost != self.failures:
            return 1
        verdicts = {finding.verdict for each in failed for finding in each.findings if finding.fails}
        return exit_code(verdicts | ({Verdict.INFRASTRUCTURE} if self.lost else set()))

    def notices(self) -> list[str]:
        """Values out of their history; baseline entries that belong to no case; idle waivers. Two lines each."""
        return (
            self.out_of_trend
            + _unused_entries(self.results, self.tiers, self.settings)
            + _idle_waivers(self.results, self.settings)
        )


def check_data(settings: Settings) -> None:
    """Read all that later runs rely on, so that a broken file ends the session before anything runs.

    Raises:
        BadData: a baseline, the waivers or the report directory cannot be used.
    """
    for path in sorted(settings.baseline_dir.glob("*/*.toml")):
        read_baseline(path)
    read_index(settings.baseline_dir)
    read_waivers(settings.baseline_dir / WAIVERS_FILE)
    _check_folder(settings.report_dir)


def _check_folder(folder: Path) -> None:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise BadData(f"{folder}: no folder can be written there", "give --report-dir another folder")


def _unused_entries(results: list[Result], tiers: dict[str, Tier], settings: Settings) -> list[str]:
    ran = {(baseline_path(settings.baseline_dir, each.record), each.record.case) for each in results}
    lines = []
    for path in sorted({path for path, _ in ran}):
        defined = {case.name for case in tiers[path.stem].cases} if path.stem in tiers else set()
        known = defined | {case for other, case in ran if other == path}
        unknown = read_baseline(path).cases.keys() - known if path.exists() else set()
        lines += [f"{path}: {name!r} belongs to no case of {path.stem}\nnext: delete it" for name in sorted(unknown)]
    return lines


def _idle_waivers(results: list[Result], settings: Settings) -> list[str]:
    """Waivers of cases that ran here: expired ones, and ones that were not needed."""
    lines = []
    for waiver in read_waivers(settings.baseline_dir / WAIVERS_FILE):
        for result in (each for each in results if applies(waiver, each.record)):
            where = f"waiver of {waiver.verdict} of {waiver.case} on {waiver.machine}"
            failures = {finding.verdict for finding in result.judgement.findings if finding.fails}
            if result.record.date > waiver.expires:
                lines.append(f"{where} expired on {waiver.expires}\nnext: settle {waiver.link}, or renew it")
            elif not any(excuses(waiver, result.record, verdict) for verdict in failures):
                lines.append(f"{where} was not needed\nnext: delete it")
    return lines
