"""The script for a real card, as far as a machine without one can run it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ci import evidence_compare, evidence_speed
from suites.harness.cases.tiers import read_tiers
from suites.harness.records.measurements import PhaseMemory
from suites.harness.records.record import RunRecord

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "harness"))
from canned import passed  # noqa: E402


def evidence(*steps: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | (variables or {"DRY_RUN": "1"})
    return subprocess.run([ROOT / "ci/evidence.sh", *steps], env=env, capture_output=True, text=True, check=False)


def test_every_step_can_be_listed_the_most_telling_first():
    result = evidence()
    assert result.returncode == 0, result.stderr
    names = [line.removeprefix("== ") for line in result.stdout.splitlines() if line.startswith("== ")]
    assert names[0] == "cuda"
    order = (
        "gpu1x80",
        "gpu1x141_single",
        "remedy1_fp8",
        "gpu4x24",
        "gpu5x24",
        "speed_bf16",
        "remedy4_bf16",
        "baselines",
    )
    assert sorted(order, key=names.index) == list(order)
    for word in ("--compile", "fp8", "evidence_compare"):
        assert word in result.stdout


def test_what_a_step_names_exists():
    for line in evidence().stdout.splitlines():
        for path, _, test in (word.partition("::") for word in line.split() if ".py" in word):
            assert f"def {test}(" in (ROOT / path).read_text() or not test


def test_a_step_that_passed_is_not_run_again_unless_it_is_named(tmp_path):
    (tmp_path / "python").write_text(f'#!/bin/sh\necho ran >>{tmp_path}/log\ncase "$*" in *gpu4x24*) exit 1;; esac\n')
    (tmp_path / "python").chmod(0o755)
    given = {"PYTHON": str(tmp_path / "python"), "REPORT": str(tmp_path / "report"), "REHEARSE": "1"}

    def runs(*steps: str) -> tuple[int, subprocess.CompletedProcess[str]]:
        (tmp_path / "log").write_text("")
        done = evidence(*steps, **given)
        return len((tmp_path / "log").read_text().splitlines()), done

    first, done = runs()
    assert first > 15
    assert (done.returncode, "failed: gpu4x24 remedy4_bf16" in done.stderr) == (1, False)
    assert "failed: gpu4x24" in done.stderr
    again, done = runs()
    assert (again, "== cuda has passed" in done.stdout) == (1, True)
    assert runs("cuda")[0] == 1


def test_an_unknown_step_is_refused_in_two_lines():
    result = evidence("gpu9x9")
    assert result.returncode == 2
    assert result.stderr.startswith("no step gpu9x9\nnext: ")


def test_the_cards_own_tier_is_a_tier():
    assert read_tiers(ROOT / "ci/evidence_tiers.toml")["gpu1x141"].card == "H200"


def measured(share: float) -> RunRecord:
    """The canned run on a card, each peak `share` above its prediction."""
    record = passed(hardware="partitioned")
    readings = tuple(_scaled(each, 1 + share) for each in record.memory)
    return replace(record, memory=readings)


def _scaled(reading: PhaseMemory, factor: float) -> PhaseMemory:
    return replace(reading, allocated_bytes=int((reading.allocated_bytes or 0) * factor))


@pytest.mark.parametrize(("share", "status"), [(0.01, 0), (-0.01, 0), (0.03, 1), (-0.03, 1)])
def test_predictions_may_be_off_by_two_hundredths(tmp_path, capsys, share, status):
    passed().write(tmp_path)
    measured(share).write(tmp_path)
    assert evidence_compare.main(["--report-dir", str(tmp_path)]) == status
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 5
    assert ("over 2 %" in out) == bool(status)


def test_nothing_to_compare_is_no_success(tmp_path, capsys):
    passed().write(tmp_path)
    assert evidence_compare.main(["--report-dir", str(tmp_path)]) == 1
    assert "next: " in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--recipe=single"], ["--recipe=fp8", "--compile"]])
def test_what_would_be_timed_can_be_asked(capsys, options):
    assert evidence_speed.main([*options, "--dry-run"]) == 0
    assert "704*384" in capsys.readouterr().out
    assert evidence_speed.main(["--recipe=nonsense", "--dry-run"]) == 2
