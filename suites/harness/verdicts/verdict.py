"""What can be said of a run, from harmless to grave, and how pytest's exit status tells it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from suites.harness.cases.tiers import Expectation
from suites.harness.records.record import Failure, RunRecord


class Verdict(StrEnum):
    """In the order of gravity."""

    PASS = "pass"
    NOT_COMPARED = "not-compared"
    UPDATED = "updated"
    IMPROVED = "improved"
    NEEDS_BASELINE = "needs-baseline"
    LOST_BASELINE = "lost-baseline"
    INCONCLUSIVE = "inconclusive"
    UPDATE_REFUSED = "update-refused"
    REGRESSED = "regressed"
    OVER_LIMIT = "over-limit"
    RECIPE_CHANGED = "recipe-changed"
    OUTCOME_CHANGED = "outcome-changed"
    SETTING_NOT_APPLIED = "setting-not-applied"
    MISSING_METRIC = "missing-metric"
    INVALID_METRIC = "invalid-metric"
    INFRASTRUCTURE = "infrastructure"


EXIT_CODES = {
    Verdict.REGRESSED: 10,
    Verdict.OUTCOME_CHANGED: 11,
    Verdict.MISSING_METRIC: 12,
    Verdict.INVALID_METRIC: 13,
    Verdict.RECIPE_CHANGED: 14,
    Verdict.OVER_LIMIT: 15,
    Verdict.INFRASTRUCTURE: 16,
    Verdict.NEEDS_BASELINE: 17,
    Verdict.LOST_BASELINE: 18,
    Verdict.UPDATE_REFUSED: 19,
    Verdict.SETTING_NOT_APPLIED: 20,
}
"""The exit status of a session whose failures are all of this kind."""

FAILING = frozenset(EXIT_CODES) - {Verdict.NEEDS_BASELINE, Verdict.LOST_BASELINE}
"""Verdicts that fail a test wherever they turn up."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a run shows."""

    verdict: Verdict
    what: str
    """What was measured against what was allowed."""
    next_step: str
    """The command or change to try."""
    metric: str | None = None
    """The metric that shows it."""
    required: bool = False
    """Whether it fails the test though its verdict alone would not."""

    @property
    def fails(self) -> bool:
        """Whether it fails the test."""
        return self.required or self.verdict in FAILING

    def __str__(self) -> str:
        return f"{self.verdict}: {printable(self.what)}\nnext: {printable(self.next_step)}"


def printable(text: str) -> str:
    """`text` with what could move a terminal's cursor made visible."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst; pass without any."""
    order = list(Verdict)
    return max(verdicts, key=order.index, default=Verdict.PASS)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """The exit status of a session in which just these failed."""
    codes = {EXIT_CODES[verdict] for verdict in verdicts}
    return codes.pop() if len(codes) == 1 else 1


def judge_outcome(record: RunRecord, expected: Expectation) -> Finding | None:
    """What is wrong with how `record` ended; None if it is what the tier says.

    Where running out of memory is expected no other failure will do, nor will another phase or category.
    """
    if record.outcome == "infrastructure":
        failure = _failure_of(record)
        what = f"the machine, not the run, failed: {failure.message}"
        return _finding(record, what, failure.next_step, Verdict.INFRASTRUCTURE)
    if record.outcome != expected.outcome:
        return _other_outcome(record, expected)
    details = record.out_of_memory
    if details is None or (details.phase in expected.phases and details.category == expected.category):
        return None
    wanted = f"{expected.category} in {' or '.join(expected.phases)}"
    return _finding(record, f"ran out of memory for {details.category} in {details.phase}, not for {wanted}", "see why")


def _other_outcome(record: RunRecord, expected: Expectation) -> Finding:
    if record.outcome == "pass":
        step = f'promote this tier: set outcome = "pass" for {record.tier}.cases.{record.case} in its tiers file'
        return _finding(record, "it fits now, and was expected to run out of memory", step)
    details = record.out_of_memory
    if details is not None:
        where = f"rank {details.rank} ran out of memory in {details.phase}"
        short = "" if details.shortfall is None else f", {details.shortfall / 2**30:.2f} GiB short"
        what = f"{where}{short}, and was expected to pass"
        better = next((role.expandable_segments for role in record.simulated_roles if role.expandable_segments), None)
        search = "ask for a layout that fits: python -m liveavatar_core fit --cards COUNTxSIZE"
        return _finding(record, what, f"set expandable_segments, and it {better}" if better else search)
    failure = _failure_of(record)
    why = f"ended in {record.outcome} ({failure.message}), and {expected.outcome} was expected"
    return _finding(record, why, failure.next_step)


def _finding(record: RunRecord, what: str, step: str, verdict: Verdict = Verdict.OUTCOME_CHANGED) -> Finding:
    where = f"{record.tier}/{record.case} on {record.hardware} cards"
    return Finding(verdict=verdict, what=f"{where}: {what}", next_step=step)


def _failure_of(record: RunRecord) -> Failure:
    assert record.failure is not None, "a record has one with every outcome but pass and oom"
    return record.failure
