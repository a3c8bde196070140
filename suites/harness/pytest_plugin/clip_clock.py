"""Running clips and timing them: plainly, or as rounds of pytest-benchmark. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest

from suites.harness.cases.clip_rounds import ClipRounds
from suites.harness.messages import ClipTime

Replies = list[ClipTime]
"""Of each rank, for one clip."""


class ClipClock(Protocol):
    """Runs clip after clip."""

    def __call__(self, clip: Callable[[], Replies], rounds: ClipRounds) -> list[Replies]:
        """What each call of `clip` gave: those that warm up, then those that count."""


def untimed(clip: Callable[[], Replies], rounds: ClipRounds) -> list[Replies]:
    """Just run them: ranks time their own clips."""
    return [clip() for _ in range(rounds.total)]


class BenchmarkClock:
    """Each measured clip is a round of the `benchmark` fixture, which may be used once a test; untimed after that."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        """`request`: of the test."""
        self._request: pytest.FixtureRequest | None = request

    def __call__(self, clip: Callable[[], Replies], rounds: ClipRounds) -> list[Replies]:
        """Run `clip` in rounds."""
        request, self._request = self._request, None
        if request is None or not rounds.measured:
            return untimed(clip, rounds)
        replies: list[Replies] = []
        benchmark = request.getfixturevalue("benchmark")
        counts = {"rounds": rounds.measured, "warmup_rounds": rounds.warm_up, "iterations": 1}
        benchmark.pedantic(lambda: replies.append(clip()), **counts)
        return replies


def clock_of(request: pytest.FixtureRequest) -> ClipClock:
    """The clock for a test: pytest-benchmark's where it measures, which it does not beside pytest-xdist's workers."""
    config = request.config
    if not config.pluginmanager.hasplugin("benchmark") or hasattr(config, "workerinput"):
        return untimed
    if config.getoption("benchmark_disable") or config.getoption("benchmark_skip"):
        return untimed
    return BenchmarkClock(request)
