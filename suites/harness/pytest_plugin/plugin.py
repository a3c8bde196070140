"""The pytest plugin: markers from tiers.toml, the `tier` fixture, verdicts as exit status, one table."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Generator

import pytest

from liveavatar_core.errors import BadData, LiveAvatarError
from suites.harness.cases.tiers import Tier, read_tiers
from suites.harness.pytest_plugin.options import add_options, read_settings
from suites.harness.pytest_plugin.progress import Progress
from suites.harness.pytest_plugin.session import Session, check_data
from suites.harness.pytest_plugin.tier_runner import TierRunner
from suites.harness.records.working_tree import commit_at_start
from suites.harness.report.terminal import render
from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

SESSION = pytest.StashKey[Session]()
BAD_INPUT = 2
"""Exit status for a file or an option that cannot be used."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of options.py."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the tiers and give each its marker; a broken file ends the session here, in two lines."""
    try:
        settings = read_settings(config)
        tiers = read_tiers(
            *settings.tiers,
            workload=settings.workload,
            weights=settings.weights,
            host_gib=settings.host_gib,
            rounds=settings.rounds,
        )
        check_data(settings)
    except LiveAvatarError as error:
        pytest.exit(str(error), returncode=BAD_INPUT)
    config.stash[SESSION] = Session(settings=settings, tiers=tiers)
    if config.get_verbosity() < 1 and not config.getoption("benchmark_compare", None):
        config.option.benchmark_quiet = True  # its table would be a second one
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Reporter(config.stash[SESSION]))
    for tier in tiers.values():
        config.addinivalue_line("markers", f"{tier.name}: {tier.title} ({tier.cards} x {tier.card})")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse tiers named as a marker of another plugin. Show progress where this process runs the tests."""
    config = session.config
    _check_markers(config)
    if not config.option.collectonly:
        commit_at_start()
    if not config.pluginmanager.hasplugin("terminalreporter") or config.get_verbosity() < 0:
        return
    if not hasattr(config, "workerinput") and not config.getoption("numprocesses", 0):
        ours = config.stash[SESSION]
        config.pluginmanager.register(Progress(config, ours.tiers, lambda: ours.doing))


def _check_markers(config: pytest.Config) -> None:
    """End the session where another plugin gives the marker of a tier a meaning: by now all have declared theirs."""
    declared = Counter(re.split(r"[:(]", line)[0].strip() for line in config.getini("markers"))
    for name in config.stash[SESSION].tiers:
        if declared[name] > 1:
            error = BadData(f"tier {name!r}: another plugin has a marker of that name", "name it after its cards")
            pytest.exit(str(error), returncode=BAD_INPUT)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`tier`: once in each hardware mode. `added_case`: once for each case of a lab's own tiers."""
    session = metafunc.config.stash[SESSION]
    if "added_case" in metafunc.fixturenames:
        cases = [
            pytest.param(case.name, id=f"{tier.name}-{case.name}", marks=getattr(pytest.mark, tier.name))
            for tier in session.tiers.values()
            if tier.added
            for case in tier.cases
        ]
        metafunc.parametrize("added_case", cases)
    if "tier" in metafunc.fixturenames:
        metafunc.parametrize("tier", session.settings.hardware, indirect=True)


@pytest.fixture
def tier(request: pytest.FixtureRequest) -> TierRunner:
    """The tier that the test's marker names, in one hardware mode."""
    session = request.config.stash[SESSION]
    marked = _tiers_of(request.node, session.tiers)
    if len(marked) != 1:
        text = f"marked with {len(marked)} tiers, not one\nnext: write pytestmark = pytest.mark.gpu4x24"
        pytest.fail(text, pytrace=False)
    return TierRunner(marked[0], request.param, session.settings, request, session.tell)


def _tiers_of(item: pytest.Item, tiers: dict[str, Tier]) -> list[Tier]:
    names = dict.fromkeys(mark.name for mark in item.iter_markers())
    return [tiers[name] for name in names if name in tiers]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test of a tier that never checked a case is no pass: nothing was judged."""
    result = yield
    tiers = _tiers_of(pyfuncitem, pyfuncitem.config.stash[SESSION].tiers)
    runners = [each for each in pyfuncitem.funcargs.values() if isinstance(each, TierRunner)]
    if tiers and not any(runner.has_checked for runner in runners):
        text = f"a test of {tiers[0].name} that judged nothing\nnext: have it call tier.check(CASE)"
        pytest.fail(text, pytrace=False)
    return result


class Reporter:
    """Gathers runs and reports them. Not in workers of pytest-xdist, which only run tests."""

    def __init__(self, session: Session) -> None:
        """`session`: where runs are gathered."""
        self._session = session
        self._problem: LiveAvatarError | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the runs out of a finished test."""
        self._session.failures += report.failed
        if report.skipped and isinstance(report.longrepr, tuple):
            self._session.skip(report.keywords, report.longrepr[2].removeprefix("Skipped: "))
        if report.when == "call":
            self._session.add(report.user_properties)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write what is to be written; say by the exit status what kind of failure there was."""
        try:
            self._session.finish()
            self._write_page()
        except LiveAvatarError as error:
            self._problem = error
            session.exitstatus = BAD_INPUT
        if session.exitstatus == pytest.ExitCode.TESTS_FAILED:
            session.exitstatus = self._session.exit_code()
        if session.exitstatus == pytest.ExitCode.OK and self._session.has_judged_nothing:
            session.exitstatus = EXIT_CODES[Verdict.INFRASTRUCTURE]
        if "hypothesis" not in sys.modules:
            # Its summary would import all of Hypothesis, which takes longer than collecting the suites.
            session.config.pluginmanager.unregister(name="hypothesispytest")

    def _write_page(self) -> None:
        settings = self._session.settings
        if settings.report_html is not None:
            from suites.harness.report.html import write_html  # imported here: only a session with a page pays for it

            notices = self._session.notices()
            write_html(settings.report_html, self._session.results, self._session.tiers, settings, notices)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of all runs; below it what needs a decision."""
        if self._problem is not None:
            terminalreporter.write_line(str(self._problem), red=True)
        if not self._session.results and not self._session.not_judged:
            return
        terminalreporter.section("conformance")
        width = terminalreporter._tw.fullwidth
        for line in render(self._session.results, self._session.notices(), width=width):
            terminalreporter.write_line(line)
