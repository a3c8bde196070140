"""Tries a rule on what hypothesis draws, until its budget is used up or it is broken; then makes the case small."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, Phase, Verbosity, currently_in_test_context, given, settings, target

from liveavatar_core.config import ClipSpec
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import InvalidRecipe
from suites.fuzz import strategies
from suites.fuzz.case import FuzzCase, changed
from suites.fuzz.catalogue import RULES, Profile
from suites.fuzz.injected_faults import injected
from suites.fuzz.prediction import forget
from suites.fuzz.ranks import pool
from suites.fuzz.rules import CHECKS, Broken

REPEATS = 4
"""Hypothesis draws a case, then several that differ from it in a number: so many draws for a case that is tried."""


class _Spent(BaseException):
    """The budget is used up: ends hypothesis from inside, as Ctrl-C would."""


@dataclass(kw_only=True)
class RuleRun:
    """How trying a rule ended: cases tried, and the smallest one that breaks it."""

    rule: str
    """Name of the rule."""
    tried: int = 0
    """Cases that were run until the first failure, or all."""
    seconds: float = 0
    """Seconds that the cases took."""
    fullest_bytes: float = 0
    """Bytes of the fullest card of all that were looked at."""
    broken: FuzzCase | None = None
    """The smallest case that breaks the rule; None: none does."""
    why: str = ""
    """The text of the failure: what was found against what is allowed."""

    def __str__(self) -> str:
        rate = f"{60 * self.tried / self.seconds:.0f} a minute" if self.seconds else "none"
        peak = f", fullest card {self.fullest_bytes / 2**30:.3f} GiB" if self.fullest_bytes else ""
        return f"{self.rule}: {self.tried} cases in {self.seconds:.1f} s ({rate}){peak}"


@dataclass(kw_only=True)
class _Search:
    """Remembers what each case came to, so that running it again costs nothing and says the same."""

    found: RuleRun
    seconds: float
    least: int
    most: int
    shrink_seconds: float
    began: float = field(default_factory=time.monotonic)
    failed_at: float | None = None
    known: dict[str, str] = field(default_factory=dict)
    layouts: set[str] = field(default_factory=set)
    drawn: int = 0

    def run(self, case: FuzzCase) -> None:
        """Raise Broken if the rule does not hold."""
        if case.text not in self.known:
            if self._is_like_another(case) or not self._may_go_on():
                return
            self.known[case.text] = self._try(case)
        if self.known[case.text]:
            self.found.broken, self.found.why = case, self.known[case.text]
            raise Broken(self.known[case.text])

    def start(self, cases: list[FuzzCase], shrink: bool) -> None:
        """Try cases that nobody drew; one that breaks the rule is made smaller here, as hypothesis did not make it."""
        for case in cases:
            try:
                self.run(case)
            except Broken:
                if shrink:
                    self._simplify(case)
                raise

    def _simplify(self, case: FuzzCase) -> None:
        """Field by field back to what it usually is, for as long as the rule stays broken."""
        usual = {**vars(ClipSpec()), **vars(Deployment())}
        for name, value in usual.items():
            with suppress(InvalidRecipe):
                simpler = replace(case, recipe=changed(case.recipe, {name: value}))
                try:
                    self.run(simpler)
                except Broken:
                    case = simpler

    def _is_like_another(self, case: FuzzCase) -> bool:
        """Whether the same layout was tried, with the same change. Steering and shrinking take such cases."""
        self.drawn += 1
        layout = f"{case.recipe.deployment} {case.change}"
        seen = layout in self.layouts
        self.layouts.add(layout)
        return seen and self.failed_at is None and self.drawn < self.most * REPEATS // 2

    def _may_go_on(self) -> bool:
        """Whether a new case may be begun. While a failure is made smaller, untried cases count as fine."""
        now = time.monotonic()
        if self.failed_at is not None:
            return now - self.failed_at < self.shrink_seconds
        spent = now - self.began >= self.seconds and self.found.tried >= self.least
        if spent or self.found.tried >= self.most:
            raise _Spent
        return True

    def _try(self, case: FuzzCase) -> str:
        why = ""
        try:
            peak = CHECKS[case.rule](case)
        except Broken as error:
            why = str(error)
        except Exception as error:  # a valid recipe that fails otherwise breaks every rule
            why = f"{type(error).__name__}: {error}"
        else:
            self.found.fullest_bytes = max(self.found.fullest_bytes, peak)
            if peak and currently_in_test_context():
                target(float(peak), label="bytes of the fullest card")
        if self.failed_at is None:
            self.found.tried, self.found.seconds = self.found.tried + 1, time.monotonic() - self.began
            self.failed_at = time.monotonic() if why else None
        return why


def run_rule(name: str, profile: Profile, *, fault: str = "", shrink: bool = True) -> RuleRun:
    """Try the rule `name` within the budget of `profile`, with a fault injected where one is named."""
    rule, found = RULES[name], RuleRun(rule=name)
    most, least = (max(1, int(number * rule.share)) for number in (profile.most, profile.least))
    search = _Search(
        found=found, seconds=profile.seconds, least=least, most=most, shrink_seconds=profile.shrink_seconds
    )
    phases = [Phase.generate, Phase.target, *([Phase.shrink] if shrink else [])]

    @settings(
        max_examples=most * REPEATS,
        deadline=None,
        database=None,
        derandomize=not profile.random,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,  # it takes a spent budget for a failure
    )
    @given(strategies.cases(name, getattr(strategies, rule.draw)))
    def explore(case: FuzzCase) -> None:
        search.run(case)

    with _prepared(fault), suppress(_Spent, Broken):
        if rule.draw == strategies.no_change.__name__:
            search.start(strategies.starters(name), shrink)
        explore()
    return found


@contextmanager
def _prepared(fault: str) -> Iterator[None]:
    """Ranks that wait, and no memory of what was predicted without the fault or will be with it."""
    forget()
    try:
        with injected(fault), pool(fault):
            yield
    finally:
        forget()


def run_case(case: FuzzCase) -> float:
    """Try one case; raises Broken."""
    with _prepared(""):
        return CHECKS[case.rule](case)
