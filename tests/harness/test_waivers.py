"""A waiver is about one case on one machine, and says everything."""

from dataclasses import replace
from datetime import date

import pytest
from canned import passed

from suites.harness.verdicts.waivers import Waiver, applies, excuses

FIELDS = {"case": "gpu5x24/published_sharded", "machine": "simulated-rtx4090x5", "reason": "r", "link": "l"}
WAIVER = Waiver(**FIELDS, verdict="regressed", since=date(2026, 11, 1), expires=date(2026, 11, 20))


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("text", ["", " "])
def test_no_field_is_empty(name, text):
    with pytest.raises(ValueError, match=f"{name} is empty"):
        replace(WAIVER, **{name: text})


@pytest.mark.parametrize(
    "case", ["gpu5x24", "gpu5x24/published", "gpu5x24/published_sharded_2", "gpu5/published_sharded"]
)
def test_it_is_about_exactly_one_case(case):
    assert applies(WAIVER, passed())
    assert not applies(replace(WAIVER, case=case), passed())


def test_it_is_about_exactly_one_tier():
    assert not applies(WAIVER, passed(tier="gpu5x24b"))
    assert not applies(WAIVER, passed(tier="gpu5x2"))


@pytest.mark.parametrize(("day", "holds"), [(1, True), (20, True), (21, False)])
def test_it_holds_from_its_first_day_through_its_last(day, holds):
    assert excuses(WAIVER, passed(date=date(2026, 11, day)), "regressed") is holds
    assert not excuses(WAIVER, passed(date=date(2026, 11, day)), "over-limit")
    assert not excuses(WAIVER, passed(date=date(2026, 10, 31)), "regressed")
