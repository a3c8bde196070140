"""Tries a rule on what hypothesis draws, until its budget is used up or it is broken; then makes the case small."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, given, settings, target
from hypothesis.database import ExampleDatabase

from suites.fuzz.case import Case
from suites.fuzz.faults import planted
from suites.fuzz.prediction import forget
from suites.fuzz.profiles import Profile
from suites.fuzz.ranks import pool
from suites.fuzz.rules import RULES, Broken
from suites.fuzz.strategies import cases

QUICK = 0.1
"""Rules that take fewer seconds than this are tried a hundred times as often."""


class _Spent(BaseException):
    """The budget is used up: ends hypothesis from inside, as Ctrl-C would."""


@dataclass(kw_only=True)
class Hunt:
    """What trying a rule came to."""

    rule: str
    """Which."""
    tried: int = 0
    """Cases that were run until the first failure, or all."""
    seconds: float = 0
    """That they took."""
    fullest_bytes: float = 0
    """Of all cards looked at."""
    broken: Case | None = None
    """The smallest case that breaks the rule."""
    why: str = ""
    """What it breaks."""

    def __str__(self) -> str:
        rate = f"{60 * self.tried / self.seconds:.0f} a minute" if self.seconds else "none"
        peak = f", fullest card {self.fullest_bytes / 2**30:.3f} GiB" if self.fullest_bytes else ""
        return f"{self.rule}: {self.tried} cases in {self.seconds:.1f} s ({rate}){peak}"


@dataclass(kw_only=True)
class _Search:
    """Remembers what each case came to, so that running it again costs nothing and says the same."""

    profile: Profile
    hunt: Hunt
    most: int
    began: float = field(default_factory=time.monotonic)
    failed_at: float | None = None
    known: dict[str, str] = field(default_factory=dict)

    def run(self, case: Case) -> None:
        """Raise Broken if the rule does not hold."""
        if case.text not in self.known:
            if not self._may_go_on():
                return
            self.known[case.text] = self._try(case)
        if self.known[case.text]:
            self.hunt.broken, self.hunt.why = case, self.known[case.text]
            raise Broken(self.known[case.text])

    def _may_go_on(self) -> bool:
        """Whether a new case may be begun. While a failure is made smaller, untried cases count as fine."""
        now = time.monotonic()
        if self.failed_at is not None:
            return now - self.failed_at < self.profile.shrink_seconds
        spent = now - self.began >= self.profile.seconds and self.hunt.tried >= self.profile.least
        if spent or self.hunt.tried >= self.most:
            raise _Spent
        return True

    def _try(self, case: Case) -> str:
        why = ""
        try:
            peak = RULES[case.rule].check(case)
        except Broken as error:
            why = str(error)
        except Exception as error:  # a valid recipe that fails otherwise breaks every rule
            why = f"{type(error).__name__}: {error}"
        else:
            self.hunt.fullest_bytes = max(self.hunt.fullest_bytes, peak)
            if peak:
                target(float(peak), label="bytes of the fullest card")
        if self.failed_at is None:
            self.hunt.tried, self.hunt.seconds = self.hunt.tried + 1, time.monotonic() - self.began
            self.failed_at = time.monotonic() if why else None
        return why


def hunt(
    name: str, profile: Profile, *, fault: str = "", shrink: bool = True, database: ExampleDatabase | None = None
) -> Hunt:
    """Try the rule `name` within the budget of `profile`, with a fault planted where one is named."""
    rule, found = RULES[name], Hunt(rule=name)
    search = _Search(profile=profile, hunt=found, most=profile.most * (100 if rule.cost < QUICK else 1))
    phases = [Phase.reuse, Phase.generate, Phase.target, *([Phase.shrink] if shrink else [])]

    @settings(
        max_examples=search.most,
        deadline=None,
        database=database,
        derandomize=not profile.random,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(cases(name, rule.draw, most_cards=rule.most_cards))
    def explore(case: Case) -> None:
        search.run(case)

    with _prepared(fault), suppress(_Spent, Broken):
        explore()
    return found


@contextmanager
def _prepared(fault: str) -> Iterator[None]:
    """Ranks that wait, and no memory of what was predicted without the fault or will be with it."""
    forget()
    try:
        with planted(fault), pool(fault):
            yield
    finally:
        forget()


def run_case(case: Case) -> float:
    """Try one case; raises Broken."""
    with _prepared(""):
        return RULES[case.rule].check(case)
