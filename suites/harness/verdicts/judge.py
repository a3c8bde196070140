"""From a run record to what is thought of it: claim, baseline, waivers."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import Any

from liveavatar_core.errors import BadInput, LiveAvatarError
from suites.harness.cases.tiers import Expectation
from suites.harness.pytest_plugin.options import Settings
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.applied_settings import unapplied
from suites.harness.verdicts.baseline_update import updated_case, with_new_metrics, write_case
from suites.harness.verdicts.baselines import CaseBaseline, baseline_path, find_case
from suites.harness.verdicts.compare import compare
from suites.harness.verdicts.completeness import own_findings
from suites.harness.verdicts.index import index_key, read_index
from suites.harness.verdicts.reasons import changes_of
from suites.harness.verdicts.verdict import Finding, Verdict, judge_outcome, worst
from suites.harness.verdicts.waivers import excuses, read_waivers

WAIVERS_FILE = "waivers.toml"
ACCEPTED: dict[str, frozenset[Verdict]] = {
    "no": frozenset(),
    "new-only": frozenset({Verdict.NEEDS_BASELINE}),
    "all": frozenset(
        {
            Verdict.IMPROVED,
            Verdict.NEEDS_BASELINE,
            Verdict.INCONCLUSIVE,
            Verdict.REGRESSED,
            Verdict.RECIPE_CHANGED,
            Verdict.OUTCOME_CHANGED,
        }
    ),
}
"""Differences that an update takes over, by what is updated."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is thought of one run."""

    verdict: Verdict
    """The worst of the findings."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know."""
    failing: bool = False
    """Whether the test fails."""
    update: bool = False
    """Whether the record is to become the baseline."""
    waived: str | None = None
    """Why a failure is excused."""

    @property
    def explanation(self) -> str:
        """Two lines for each finding that fails the test."""
        return "\n".join(str(finding) for finding in self.findings if finding.fails)


def judge(record: RunRecord, expected: Expectation, settings: Settings) -> Judgement:
    """Compare with what the tier says, with what the record must have and may hold, with the baseline; ask the waivers.

    Raises:
        BadData: the baseline or the waivers are broken.
    """
    wrong = judge_outcome(record, expected)
    own = [wrong] if wrong is not None else [*own_findings(record), *unapplied(record)]
    judgement = _of(own, failing=True) if own else _judge_numbers(record, settings)
    return _waive(judgement, record, settings)


def unwritten(judgement: Judgement, error: LiveAvatarError) -> Judgement:
    """`judgement` of a run whose record could not be written: it fails, and nothing becomes a baseline."""
    lost = Finding(verdict=Verdict.INFRASTRUCTURE, what=error.what, next_step=error.next_step)
    findings = (*judgement.findings, lost)
    return Judgement(verdict=worst(each.verdict for each in findings), findings=findings, failing=True)


def write_baseline(record: RunRecord, settings: Settings) -> None:
    """Take `record` over as baseline, as far as the settings say."""
    new = _updated(record, settings)
    if new is not None:
        write_case(settings.baseline_dir, record, new)


def judgement_from_data(data: Any) -> Judgement:
    """The judgement that `asdict` and JSON made `data` of."""
    findings = tuple(Finding(**{**item, "verdict": Verdict(item["verdict"])}) for item in data["findings"])
    return Judgement(**{**data, "verdict": Verdict(data["verdict"]), "findings": findings})


def _judge_numbers(record: RunRecord, settings: Settings) -> Judgement:
    if settings.baseline_compare == "off" and settings.baseline_update == "no":
        return Judgement(verdict=Verdict.NOT_COMPARED)
    listed = read_index(settings.baseline_dir).get(index_key(record))
    differences = compare(record, find_case(settings.baseline_dir, record), listed)
    findings = [_required(each, settings) for each in differences]
    accepted = ACCEPTED[settings.baseline_update]
    left = [finding for finding in findings if finding.verdict not in accepted]
    failing = any(finding.fails for finding in left)
    if settings.baseline_update == "no" or failing:
        return _of(left, failing=failing and settings.baseline_compare == "fail")
    return _judge_update(left, record, settings)


def _required(finding: Finding, settings: Settings) -> Finding:
    """A number that nobody reviewed is a failure where baselines are required: a nightly run would compare nothing.

    One that is lost is never replaced by an update: the update could not tell whether it got worse.
    """
    strict = settings.require_baselines
    needed = {
        Verdict.NEEDS_BASELINE: strict or settings.require_hardware,
        Verdict.LOST_BASELINE: strict or settings.baseline_update != "no",
    }
    return replace(finding, required=True) if needed.get(finding.verdict) else finding


def _judge_update(left: list[Finding], record: RunRecord, settings: Settings) -> Judgement:
    try:
        new = _updated(record, settings)
    except LiveAvatarError as error:
        where = f"{record.tier}/{record.case} on {record.hardware} cards: no baseline written"
        verdict = Verdict.REGRESSED if isinstance(error, BadInput) else Verdict.UPDATE_REFUSED
        refused = Finding(verdict=verdict, what=f"{where}: {error.what}", next_step=error.next_step)
        return _of([*left, refused], failing=True)
    if new is None:
        return _of(left, failing=False)
    judgement = _of([*left, _update_finding(new, record, settings)], failing=False)
    return replace(judgement, update=True, verdict=Verdict.UPDATED)


def _update_finding(new: CaseBaseline, record: RunRecord, settings: Settings) -> Finding:
    """What is written, and where: each value that moves, old and new."""
    path, old = baseline_path(settings.baseline_dir, record), find_case(settings.baseline_dir, record)
    moved = ", ".join(changes_of(old, new)) or "no value moved"
    what = f"{record.tier}/{record.case} on {record.hardware} cards, {path}: {moved}"
    return Finding(verdict=Verdict.UPDATED, what=what, next_step=f"review it: git diff {shlex.quote(str(path))}")


def _updated(record: RunRecord, settings: Settings) -> CaseBaseline | None:
    """The baseline after the update; None if it stays as it is."""
    old = find_case(settings.baseline_dir, record)
    if settings.baseline_update == "new-only":
        new = with_new_metrics(old, record)
    else:
        new = updated_case(old, record, settings.baseline_reason)
    return None if new == old else new


def _waive(judgement: Judgement, record: RunRecord, settings: Settings) -> Judgement:
    if not judgement.failing:
        return judgement
    failures = {finding.verdict for finding in judgement.findings if finding.fails}
    waivers = read_waivers(settings.baseline_dir / WAIVERS_FILE)
    used = [waiver for waiver in waivers if any(excuses(waiver, record, verdict) for verdict in failures)]
    if failures != {waiver.verdict for waiver in used}:
        return judgement
    why = "; ".join(f"{waiver.reason} ({waiver.link}, until {waiver.expires})" for waiver in used)
    return replace(judgement, failing=False, waived=why)


def _of(findings: list[Finding], *, failing: bool) -> Judgement:
    verdict = worst(finding.verdict for finding in findings)
    return Judgement(verdict=verdict, findings=tuple(findings), failing=failing)
