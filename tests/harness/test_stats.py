"""Statistics agree with scipy and numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from suites.harness.verdicts.stats import Summary, disjoint, quantile, summarise

SAMPLES = st.lists(st.floats(min_value=0.001, max_value=1e6), min_size=1, max_size=30)


@given(SAMPLES)
def test_median_and_interquartile_range_are_scipys(samples):
    found = summarise(samples)
    assert found.value == pytest.approx(np.median(samples), rel=1e-12)
    assert found.spread == pytest.approx(scipy_stats.iqr(samples), rel=1e-9, abs=1e-9)
    assert found.n == len(samples)


@given(SAMPLES, st.floats(min_value=0, max_value=1))
def test_quantile_is_numpys(samples, part):
    assert quantile(samples, part) == pytest.approx(np.quantile(samples, part), rel=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sample_that_is_no_number_spoils_the_summary(bad):
    assert math.isnan(summarise([1.0, bad, 2.0]).value)


def test_no_samples_have_no_summary():
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        ((10, 2), (13, 2), True),
        ((10, 2), (12, 2), False),
        ((10, 0), (10, 0), False),
        ((13, 2), (10, 2), True),
    ],
)
def test_middle_halves_that_touch_are_not_disjoint(first, second, apart):
    summaries = [Summary(value=value, spread=spread, n=5) for value, spread in (first, second)]
    assert disjoint(*summaries) is apart
