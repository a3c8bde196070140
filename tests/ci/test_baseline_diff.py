"""What a reviewer is told of two commits."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from repository import FIVE, LATER, MACHINE, case, moved

from ci.baseline_diff import main

ROOT = Path(__file__).parents[2]
OLD = case()


@pytest.fixture
def diff(repository, capsys):
    """The exit status and what was written of two commits."""

    def run(base, head, *options):
        status = main([base, head, "--repository", str(repository.folder), *options])
        return status, capsys.readouterr().out

    return run


def changed(metric, *, history=(), measured=LATER, **values):
    return replace(moved(OLD, metric, **values), history=history, measured=measured)


def test_nothing_moved(repository, diff):
    base = repository.put(published=OLD)
    status, text = diff(base, repository.commit())
    assert (status, text) == (0, "unchanged: 2 values unchanged\n\nunchanged: 2 values\n")


def test_leads_with_the_verdict_and_shows_each_number(repository, diff):
    base = repository.put(published=OLD)
    why = "2026-11-21 2f0c2ab: peak_vram_gib 20 -> 21: a longer sink"
    head = repository.put(published=changed("peak_vram_gib", value=21.0, history=(why,)))
    status, text = diff(base, head)
    assert status == 0
    assert text.splitlines()[0] == "regressed: 1 regressed, 1 values unchanged"
    row = next(line for line in text.splitlines() if line.startswith(FIVE))
    wanted = (f"{FIVE}: published", "peak_vram_gib", "20", "21", "+1 (+5.00%)", "0.2", "regressed", "a longer sink")
    assert [word.strip() for word in row.split("  ") if word] == list(wanted)


@pytest.mark.parametrize(
    ("value", "spread", "verdict"),
    [(20.1, 0.0, "pass"), (19.0, 0.0, "improved"), (21.0, 3.0, "inconclusive"), (22.2, 0.0, "over-limit")],
)
def test_a_value_is_judged_by_the_tolerance_it_had(repository, diff, value, spread, verdict):
    base = repository.put(published=OLD)
    why = ["2026-11-21: peak_vram_gib.rel 0.01 -> 0.5: why", "2026-11-21: peak_vram_gib.limit 21.5 -> 22.15: why"]
    why += [f"2026-11-21: peak_vram_gib 20 -> {value:g}: why"] if value > 20 else []
    head = changed("peak_vram_gib", value=value, spread=spread, rel=0.5, limit=22.15, history=tuple(why))
    assert diff(base, repository.put(published=head))[1].startswith(verdict)


def test_two_commits_in_the_other_order_say_the_opposite(repository, diff):
    base = repository.put(published=OLD)
    head = repository.put(published=changed("peak_vram_gib", value=21.0, history=("why",)))
    assert "1 improved" in diff(head, base)[1].splitlines()[0]


def test_tolerances_come_first_and_environment_before_values(repository, diff):
    base = repository.put(published=OLD)
    measured = replace(LATER, torch="2.14.0")
    head = changed("peak_vram_gib", value=21.0, rel=0.2, measured=measured, history=("why",))
    text = diff(base, repository.put(published=head))[1]
    titles = [line for line in text.splitlines() if line in ("Tolerances", "Environment", "Cases", "Values")]
    assert titles == ["Tolerances", "Environment", "Values"]
    assert "peak_vram_gib.rel  0.01  0.2  loosened" in text
    assert "measured.torch  2.13.0  2.14.0" in text
    assert "1 tolerances loosened" in text.splitlines()[0]


def test_another_recipe_or_ending_is_named(repository, diff):
    base = repository.put(published=OLD)
    why = ("2026-11-21 2f0c2ab: outcome pass -> oom: another layout",)
    head = replace(OLD, recipe="00000000", outcome="oom", phase="encode", measured=LATER, history=why)
    text = diff(base, repository.put(published=head))[1]
    assert "recipe   9c41e07b  00000000" in text
    assert "outcome  pass      oom" in text
    assert text.startswith("to be reviewed")


def test_files_cases_and_values_that_come_and_go(repository, diff):
    empty = repository.commit()
    base = repository.put(published=OLD, old=OLD)
    fewer = replace(OLD, metrics={"peak_vram_gib": OLD.metrics["peak_vram_gib"]})
    head = repository.put(published=fewer, new=OLD)
    first, text = diff(empty, base)[1], diff(base, head)[1]
    assert "new machine or tier" in first
    assert first.count("first baseline") == 2
    assert "nothing is compared any more" in text
    assert "not compared any more" in text
    assert "first baseline" in text


def test_markdown_folds_what_stayed_and_keeps_names_as_text(repository, diff):
    hostile = "<img src=x>|`**a**"
    base = repository.put(**{hostile: OLD})
    head = repository.put(**{hostile: changed("peak_vram_gib", value=19.0)})
    text = diff(base, head, "--markdown")[1]
    assert text.startswith("<!-- baseline-diff -->\n\n### Baselines: improved")
    assert "1 values unchanged" in text
    assert "<img" not in text
    row = next(line for line in text.splitlines() if line.startswith("| ") and "improved" in line)
    assert row.replace("\\|", "").count("|") == 9


@pytest.mark.parametrize("revision", ["nowhere", "--output=x", "HEAD:baselines"])
def test_a_revision_that_is_none(repository, revision, capsys):
    arguments = ["--repository", str(repository.folder), "HEAD", "--", revision]
    status = main(arguments[:3] + arguments[3:] if revision.startswith("--") else [*arguments[:3], revision])
    assert status == 2
    assert "\nnext: " in capsys.readouterr().err


def test_a_folder_that_is_no_repository(tmp_path, capsys):
    assert main(["HEAD", "HEAD", "--repository", str(tmp_path)]) == 2
    assert "not a git repository" in capsys.readouterr().err


def test_needs_nothing_but_python(repository):
    """A review must not wait for torch to be installed: not even site-packages are there."""
    base, head = repository.put(published=OLD), repository.put(published=OLD, machine=MACHINE)
    command = [sys.executable, "-S", "-m", "ci.baseline_diff", base, head, "--repository", str(repository.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
