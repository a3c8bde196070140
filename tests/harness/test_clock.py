"""Clips are rounds of pytest-benchmark where it measures, and run all the same where it does not."""

from __future__ import annotations

import json

import pytest

pytest_plugins = ["pytester"]
TEST = """
from suites.harness.cases.clip_rounds import ClipRounds
from suites.harness.pytest_plugin.clip_clock import clock_of

def test_clips(request):
    clock, made = clock_of(request), []
    for _ in range(2):
        replies = clock(lambda: made.append(1) or [{"clip": len(made)}], ClipRounds(warm_up=2, measured=3))
        assert [clip for [clip] in replies] == [{"clip": number} for number in range(len(made) - 4, len(made) + 1)]
    assert len(made) == 10
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    from lab import ROOT

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)  # the session in the test is no worker of the one around it
    pytester.makepyfile(TEST)
    return lambda *options: pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)


def test_each_clip_is_a_round(session, pytester: pytest.Pytester):
    session("--benchmark-json=times.json").assert_outcomes(passed=1)
    [timed] = json.loads((pytester.path / "times.json").read_text())["benchmarks"]
    assert timed["stats"]["rounds"] == 3, "of the first series what does not warm up; a second one is left untimed"


@pytest.mark.parametrize("options", [["--benchmark-disable"], ["-n", "1"], ["-p", "no:benchmark"]])
def test_without_it_clips_run_untimed(session, options):
    session(*options).assert_outcomes(passed=1)
