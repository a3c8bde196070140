"""Running clips and timing them: plainly, or as rounds of pytest-benchmark. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest

from suites.harness.messages import ClipTime

Replies = list[ClipTime]
"""Of each rank, for one clip."""


class ClipClock(Protocol):
    """Runs a clip a number of times."""

    def __call__(self, clip: Callable[[], Replies], count: int) -> list[Replies]:
        """What each of `count` calls of `clip` gave."""


def untimed(clip: Callable[[], Replies], count: int) -> list[Replies]:
    """Just run them: ranks time their own clips."""
    return [clip() for _ in range(count)]


class BenchmarkClock:
    """Each clip is a round of the `benchmark` fixture, which may be used once in a test; untimed after that."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        """`request`: of the test."""
        self._request: pytest.FixtureRequest | None = request

    def __call__(self, clip: Callable[[], Replies], count: int) -> list[Replies]:
        """Run `clip` in `count` rounds."""
        request, self._request = self._request, None
        if request is None:
            return untimed(clip, count)
        replies: list[Replies] = []
        benchmark = request.getfixturevalue("benchmark")
        benchmark.pedantic(lambda: replies.append(clip()), rounds=count, iterations=1)
        return replies


def clock_of(request: pytest.FixtureRequest) -> ClipClock:
    """The clock for a test: pytest-benchmark's where it measures, which it does not beside pytest-xdist's workers."""
    config = request.config
    if not config.pluginmanager.hasplugin("benchmark") or hasattr(config, "workerinput"):
        return untimed
    if config.getoption("benchmark_disable") or config.getoption("benchmark_skip"):
        return untimed
    return BenchmarkClock(request)
