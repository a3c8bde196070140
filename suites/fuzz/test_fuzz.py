"""Drawn recipes keep every rule; `--fuzz-profile` says how many are drawn. What broke a rule once is tried for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from suites.fuzz.case import keep, kept_cases
from suites.fuzz.catalogue import PROFILES, RULES


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str, fuzz_profile: str, record_property: Callable[[str, object], None]) -> None:
    """No drawn recipe breaks it."""
    from suites.fuzz.run_rule import run_rule  # imported here: it takes torch

    found = run_rule(rule, PROFILES[fuzz_profile])
    record_property("fuzz", str(found))
    if found.broken:
        path = keep(found.broken)
        text = f"{RULES[rule].says}; it does not: {found.why}\nnext: {found.broken.command}\nkept as {path}"
        pytest.fail(text, pytrace=False)


@pytest.mark.parametrize("name", kept_cases())
def test_kept(name: str) -> None:
    """A case that broke a rule once."""
    from suites.fuzz.run_rule import run_case

    run_case(kept_cases()[name])
