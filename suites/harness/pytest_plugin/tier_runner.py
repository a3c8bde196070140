"""What a tier's tests hold in their hands: run a case, keep its record, judge it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import NoReturn

import pytest

from liveavatar_core.errors import BadData, BadInput, LiveAvatarError
from suites.harness.cases.clip_rounds import ClipRounds
from suites.harness.cases.tiers import Case, Tier
from suites.harness.hardware import HardwareMode, mode_named
from suites.harness.pytest_plugin.clip_clock import ClipClock, Replies, clock_of
from suites.harness.pytest_plugin.options import AUTO, Settings
from suites.harness.pytest_plugin.report_claim import claim_report, own_session
from suites.harness.records.record import HARDWARE_MODES, RunRecord, run_name
from suites.harness.verdicts.judge import Judgement, judge, unwritten
from suites.harness.verdicts.verdict import Verdict

RECORD, UNWRITTEN, JUDGEMENT = "record", "unwritten_record", "judgement"
LOST, REFUSED = "lost_run", "refused_modes"
"""Names of the test's properties that carry a run to the reports, and into JUnit files."""


REPORT = "the folder that --report-dir names"


class TierRunner:
    """A tier in one hardware mode, for one test."""

    def __init__(
        self,
        tier: Tier,
        hardware: str,
        settings: Settings,
        request: pytest.FixtureRequest,
        tell: Callable[[str], None],
    ) -> None:
        """`hardware`: a hardware mode, or auto. `tell`: hears what is being done."""
        self._tell = tell
        self.tier, self.hardware = tier, hardware
        self.has_checked = False
        self._settings, self._item, self._clock = settings, request.node, clock_of(request)

    def check(self, case: str | Case) -> RunRecord:
        """Run a case: the test fails unless it ends as its tier says and its numbers stand by the baseline.

        Args:
            case: one of the tier's cases by name, or a case made here.

        Returns:
            The record, for claims beyond that.
        """
        self.has_checked = True
        self._claim_report()
        try:
            case = self.tier.case(case) if isinstance(case, str) else case
            record = self._run(case)
            judgement = judge(record, case.expect, self._settings)
            if judgement.verdict is Verdict.INCONCLUSIVE:
                record = _pooled(record, self._run(case))
                judgement = judge(record, case.expect, self._settings)
            judgement = self._keep(record, judgement)
        except LiveAvatarError as error:
            pytest.fail(str(error), pytrace=False)
        except OSError as error:
            self._lost(f"{case if isinstance(case, str) else case.name} could not be run: {error}")
        if judgement.failing:
            pytest.fail(judgement.explanation, pytrace=False)
        return record

    def _claim_report(self) -> None:
        try:
            claim_report(self._settings.report_dir, own_session())
        except (BadInput, OSError) as error:
            self._lost(str(error).split("\n")[0])

    def _run(self, case: Case) -> RunRecord:
        mode = self._mode()
        if lacks := mode.unsupported(self.tier, case):
            pytest.skip(f"{self.tier.name}/{case.name} asks for what these cards do not have: {lacks}")
        folder = self._settings.report_dir / "runs" / run_name(self.tier.name, case.name, mode.name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        doing = f"{case.name} on {self.tier.cards} x {self.tier.card}, {mode.name}"
        self._tell(doing)
        return mode.run(self.tier, case, folder, self._telling(doing))

    def _telling(self, doing: str) -> ClipClock:
        """The clock, which says before each clip that it begins."""

        def clock(clip: Callable[[], Replies], rounds: ClipRounds) -> list[Replies]:
            number = itertools.count(1)

            def told() -> Replies:
                self._tell(f"clip {next(number)} of {rounds.total}, {doing}")
                return clip()

            return self._clock(told, rounds)

        return clock

    def _mode(self) -> HardwareMode:
        """The mode to run in; the test ends here if this machine has none."""
        refusals: list[str] = []
        for name in self._candidates():
            mode = mode_named(name)
            reason = mode.why_not(self.tier)
            if reason is None:
                if refusals:
                    self._item.user_properties.append((REFUSED, f"{self.tier.name} {name}: {'; '.join(refusals)}"))
                return mode
            refusals.append(f"{name}: {reason}")
        text = f"{self.tier.name} cannot run here\n" + "\n".join(refusals)
        if self._settings.require_hardware:
            self._item.user_properties.append((LOST, text))
            pytest.fail(f"{text}\nnext: free or add the cards, or drop --require-hardware", pytrace=False)
        pytest.skip(text)

    def _candidates(self) -> tuple[str, ...]:
        if self.hardware != AUTO:
            return (self.hardware,)
        return ("physical",) if self._settings.require_hardware else HARDWARE_MODES

    def _lost(self, text: str) -> NoReturn:
        self._item.user_properties.append((LOST, text))
        pytest.fail(
            f"{Verdict.INFRASTRUCTURE}: {text}\nnext: see that {REPORT} can be written, by this session alone",
            pytrace=False,
        )

    def _keep(self, record: RunRecord, judgement: Judgement) -> Judgement:
        """Write the record; where that fails the session still shows it. Returns what is thought of it by then."""
        properties = self._item.user_properties
        try:
            properties.append((RECORD, str(record.write(self._settings.report_dir))))
        except BadData as error:
            properties.append((UNWRITTEN, record.to_json()))
            judgement = unwritten(judgement, error)
        properties.append((JUDGEMENT, json.dumps(asdict(judgement))))
        return judgement


def _pooled(first: RunRecord, second: RunRecord) -> RunRecord:
    """`second` with the clips of both; `second` alone if they are not of one kind."""
    if (first.outcome, first.recipe.hash, first.machine) != (
        second.outcome,
        second.recipe.hash,
        second.machine,
    ):
        return second
    clips = first.timing.clip_seconds + second.timing.clip_seconds
    return replace(second, timing=replace(second.timing, clip_seconds=clips))
