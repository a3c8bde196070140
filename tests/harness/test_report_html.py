"""`--report-html`: the page is written when the session ends, whatever its verdict."""

from __future__ import annotations

from canned import passed, physical
from lab import said

from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

pytest_plugins = ["pytester"]


def test_a_session_leaves_a_page(lab):
    lab.put(passed())
    assert lab.run("--report-html", "page/report.html").ret == 0
    text = (lab.folder / "page/report.html").read_text()
    assert "The run ended as expected" in text
    assert "gpu5x24: five 24 GB cards" in text


def test_a_failing_session_leaves_a_page_as_well(lab):
    lab.baseline(passed(peak=20.0))
    lab.put(passed(peak=21.5))
    assert lab.run("--report-html", "report.html").ret == EXIT_CODES[Verdict.REGRESSED]
    assert "1 of 1 runs need a decision: regressed" in (lab.folder / "report.html").read_text()


def test_a_page_that_cannot_be_written_is_said_in_two_lines(lab):
    lab.put(passed())
    result = lab.run_apart("--report-html", ".")
    assert result.ret == 2
    assert "--report-html . names a folder, not a file\nnext: " in said(result)


def test_a_session_with_a_history_and_a_page_shows_earlier_runs(lab):
    lab.offer("physical")
    lab.put(physical(clips=(20.0, 21.0)))
    for _ in range(2):
        assert lab.run("--history", "history", "--report-html", "report.html").ret == 0
    assert "Time a clip, s, over time" in (lab.folder / "report.html").read_text()
