"""What a test session gathers from its tests, in the process that reports."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from liveavatar_core.errors import BadData
from liveavatar_core.outputs import check_output, may_write
from suites.harness.cases.tiers import Tier
from suites.harness.pytest_plugin.options import Settings
from suites.harness.pytest_plugin.tier_runner import JUDGEMENT, LOST, RECORD, REFUSED, UNWRITTEN
from suites.harness.records.history import HistoryEntry, keep, outliers, series_of, unreadable_files
from suites.harness.records.record import RunRecord, read_record, run_name
from suites.harness.verdicts.baselines import baseline_path, read_baseline
from suites.harness.verdicts.index import read_index
from suites.harness.verdicts.judge import WAIVERS_FILE, Judgement, judgement_from_data, write_baseline
from suites.harness.verdicts.verdict import Verdict, exit_code, printable
from suites.harness.verdicts.waivers import applies, excuses, read_waivers


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run and what is thought of it."""

    record: RunRecord
    judgement: Judgement
    report_dir: Path | None = None
    """The folder that the run's session reported to; None: that of this session."""


@dataclass(kw_only=True)
class Session:
    """Everything known so far."""

    settings: Settings
    tiers: dict[str, Tier]
    results: list[Result] = field(default_factory=list)
    failures: int = 0
    """Failed tests, whatever failed them."""
    lost: int = 0
    """Runs that the machine did not let begin: without their cards where those are required, or without a folder."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why `auto` took no more real mode, by tier and mode."""
    not_judged: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Tests of a tier that were skipped, by tier and reason."""
    out_of_trend: list[str] = field(default_factory=list)
    """Values that fall out of their history, and files of it that cannot be read. Two lines each."""
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
        self.refused |= dict(str(value).split(": ", 1) for name, value in values if name == REFUSED)
        runs = [(name, str(value)) for name, value in values if name in (RECORD, UNWRITTEN)]
        judgements = [str(value) for name, value in values if name == JUDGEMENT]
        for (name, value), judgement in zip(runs, judgements, strict=True):
            record = read_record(Path(value)) if name == RECORD else RunRecord.from_json(value)
            self.results.append(Result(record=record, judgement=judgement_from_data(json.loads(judgement))))

    def skip(self, names: Collection[str], reason: str) -> None:
        """Take note of a test that was skipped. `names`: its markers, among others."""
        for tier in self.tiers.keys() & set(names):
            self.not_judged[tier, " ".join(reason.split())] += 1

    def finish(self) -> None:
        """Write the baselines that are to be updated, and the history."""
        for result in self.results:
            if result.judgement.update:
                write_baseline(result.record, self.settings)
        if self.settings.history is not None:
            self._keep(self.settings.history)

    def _keep(self, history: Path) -> None:
        """Say what falls out of its history, then add to it."""
        self.out_of_trend = unreadable_files(history)
        for each in self.results:
            self.out_of_trend += outliers(each.record, series_of(history, each.record))
        now = datetime.now(UTC)
        for each in self.results:
            keep(history, HistoryEntry.of(each.record, each.judgement.verdict, now))

    @property
    def has_judged_nothing(self) -> bool:
        """Whether every test of a tier was skipped where hardware is required."""
        return self.settings.require_hardware and bool(self.not_judged) and not self.results

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
            + _nccl_warnings(self.results, self.settings.report_dir)
            + _unused_entries(self.results, self.tiers, self.settings)
            + _idle_waivers(self.results, self.settings)
            + [f"{what} was taken by auto, as {why}" for what, why in self.refused.items()]
            + _weights_left_out(self.results, self.tiers)
            + [_not_judged(tier, reason, count) for (tier, reason), count in sorted(self.not_judged.items())]
        )


def _nccl_warnings(results: Iterable[Result], folder: Path) -> list[str]:
    """What NCCL warned of, a case at a time: it has a part in seconds, and none in the verdict."""
    lines = []
    for record in (each.record for each in results if each.record.nccl and each.record.nccl.warnings):
        warnings = record.nccl.warnings if record.nccl else ()
        more = f" (and {len(warnings) - 1} more)" if len(warnings) > 1 else ""
        what = f"{record.tier}/{record.case}: NCCL warns on rank {warnings[0].rank}: {warnings[0].text}{more}"
        logs = folder / "runs" / run_name(record.tier, record.case, record.hardware) / "rank*.nccl.log"
        lines.append(f"{printable(what)}\nnext: read {logs}")
    return lines


def _weights_left_out(results: list[Result], tiers: dict[str, Tier]) -> list[str]:
    """Runs that took none of the weights that somebody gave."""
    given = any(tier.weights.digest for tier in tiers.values())
    without = sorted({each.record.hardware for each in results if not each.record.recipe.weights_digest})
    if not given or not without:
        return []
    what = f"weights-not-taken: --ckpt_dir was given, and runs that are {' or '.join(without)} take no checkpoint"
    return [
        f"{what}\nnext: run it on cards (--hardware=physical or partitioned) for a video and baselines of these weights"
    ]


def _not_judged(tier: str, reason: str, count: int) -> str:
    what = f"not-judged: {count} test{'s' if count > 1 else ''} of {tier}: {reason}"
    if " next: " in reason:
        return what.replace(" next: ", "\nnext: ", 1)
    return f"{what}\nnext: run it where that does not hold; --require-hardware makes it a failure"


def check_data(settings: Settings) -> None:
    """Read all that later runs rely on, so that a broken file ends the session before anything runs.

    Raises:
        BadData: a baseline, the waivers, the report directory or the history cannot be used.
        BadInput: the page could not be written.
    """
    for path in sorted(settings.baseline_dir.glob("*/*.toml")):
        read_baseline(path)
    read_index(settings.baseline_dir)
    read_waivers(settings.baseline_dir / WAIVERS_FILE)
    check_folder(settings.report_dir, "--report-dir")
    if settings.report_html is not None:
        check_output(settings.report_html, "--report-html")
    if settings.history is not None:
        check_folder(settings.history, "--history")


def check_folder(folder: Path, option: str) -> None:
    """Refuse a folder that could not be made or written. `option`: what gave it. Raises BadData."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not may_write(there):
        raise BadData(f"{folder}: no folder can be written there", f"give {option} another folder")


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
