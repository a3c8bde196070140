"""What a session is doing: on a terminal a bar for each tier while a test runs, elsewhere a line for each test.

The bars stand below the line that pytest is writing, and only during calls of tests, when pytest itself writes
nothing. They are gone before it does.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import pytest

REFRESH_SECONDS = 0.25
WIDE, NARROW = 100, 50
"""Columns from which bars are long, and below which there is no room for any."""
Counts = Mapping[str, tuple[int, int]]
"""By tier: tests that have run, and all."""


def bars(counts: Counts, running: str, doing: str, seconds: float, width: int) -> list[str]:
    """A line for each tier, none wider than `width`; that of the running one says what is being done."""
    name_width = max(map(len, counts), default=0)
    long = 20 if width >= WIDE else 10 if width >= NARROW else 0
    lines = []
    for tier, (done, total) in counts.items():
        filled = long * done // total
        bar = f"{'━' * filled}{'╌' * (long - filled)} " if long else ""
        what = f"  {seconds:.0f} s  {doing}" if tier == running else ""
        lines.append(f"{tier:<{name_width}} {bar}{done}/{total}{what}"[: width - 1])
    return lines


class LiveLines:
    """Lines below the cursor of a terminal that are drawn anew again and again, and leave no trace."""

    def __init__(self, descriptor: int, lines: Callable[[], list[str]], column: int) -> None:
        """`descriptor`: of the terminal. `column`: where its cursor stands."""
        self._descriptor, self._lines = descriptor, lines
        self._ended = threading.Event()
        count, right = len(lines()), f"\x1b[{column}C" if column else ""
        self._write("\n" * count + f"\x1b[{count}A\r{right}")  # scrolls where there is no room below
        self._thread = threading.Thread(target=self._refresh, name="progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Clear them; the cursor stands where it stood."""
        self._ended.set()
        self._thread.join()
        self._write("\x1b[J")

    def _refresh(self) -> None:
        while True:
            text = "".join(f"\x1b[1B\r\x1b[K{line}" for line in self._lines())
            self._write(f"\x1b7{text}\x1b8")
            if self._ended.wait(REFRESH_SECONDS):
                return

    def _write(self, text: str) -> None:
        os.write(self._descriptor, text.encode())


class Progress:
    """A plugin of pytest that shows how far each tier is. Not beside pytest-xdist, which shows its own."""

    def __init__(self, config: pytest.Config, tiers: Iterable[str], doing: Callable[[], str]) -> None:
        """`doing`: says what the running test does."""
        self._reporter: pytest.TerminalReporter = config.pluginmanager.getplugin("terminalreporter")
        self._tiers, self._doing = tuple(tiers), doing
        self._item: pytest.Item
        self._total: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._live = self._reporter.isatty and config.getoption("capture") != "no"
        # Descriptor 1 is redirected while tests run; this copy is not.
        self._terminal = os.dup(1) if self._live else -1

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count each tier's tests."""
        self._total.update(tier for item in session.items for tier in self._of(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Keep count."""
        self._item = item
        result = yield
        self._done.update(self._of(item))
        return result

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self) -> None:
        """Elsewhere than on a terminal: say which test of which tier begins, on a line that ends with its result."""
        tiers = self._of(self._item)
        if tiers and not self._live and self._reporter.verbosity == 0:
            writer, number = self._reporter._tw, self._done[tiers[0]] + 1
            if writer.width_of_current_line:
                writer.line()
            writer.write(f"{tiers[0]} {number}/{self._total[tiers[0]]}: {self._item.name} ", flush=True)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """On a terminal: bars while the test runs."""
        tiers = self._of(item)
        if not tiers or not self._live:
            return (yield)
        with self._bars(tiers[0]):
            return (yield)

    @contextmanager
    def _bars(self, running: str) -> Iterator[None]:
        counts = {tier: (self._done[tier], total) for tier, total in self._total.items()}
        started = time.monotonic()
        writer = self._reporter._tw
        writer.flush()
        live = LiveLines(
            self._terminal,
            lambda: bars(counts, running, self._doing(), time.monotonic() - started, writer.fullwidth),
            min(writer.width_of_current_line, writer.fullwidth - 1),
        )
        try:
            yield
        finally:
            live.close()

    def _of(self, item: pytest.Item) -> list[str]:
        return [mark.name for mark in item.iter_markers() if mark.name in self._tiers]
