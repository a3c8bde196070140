"""Says how much was tried, at the end of a session."""

import pytest

from suites.harness.pytest_plugin.options import option


@pytest.fixture
def fuzz_profile(request: pytest.FixtureRequest) -> str:
    """The name of the profile that `--fuzz-profile` gives."""
    return str(option(request.config, "fuzz-profile"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each rule: how many cases were tried, and what came of them."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    lines = [str(value) for report in reports for name, value in report.user_properties if name == "fuzz"]
    if lines:
        terminalreporter.section("fuzz")
        for line in sorted(set(lines)):
            terminalreporter.write_line(line)
