"""A machine proposes what is new or better, and leaves what is worse to people."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))
from canned import failed, passed, ran_out

from ci.propose_baselines import main
from suites.harness.verdicts.baselines import find_case


@pytest.fixture
def propose(tmp_path, capsys):
    """The case after proposals from these records, one after the other."""

    def run(*records):
        for index, record in enumerate(records):
            path = record.write(tmp_path / str(index))
            assert main([str(path.parent), "--baseline-dir", str(tmp_path / "baselines")]) == 0
        return find_case(tmp_path / "baselines", records[-1])

    return run


def peak(case):
    return case.metrics["peak_vram_gib"].value


def test_a_first_value_is_proposed(propose):
    assert peak(propose(passed(peak=20.0))) == 20.0


def test_a_better_value_is_proposed(propose):
    assert peak(propose(passed(peak=20.0), passed(peak=19.0))) == 19.0


@pytest.mark.parametrize("value", [21.0, 20.0001])
def test_a_value_that_is_worse_or_as_good_is_not(propose, value):
    assert peak(propose(passed(peak=20.0), passed(peak=value))) == 20.0


@pytest.mark.parametrize("record", [failed("hang"), ran_out(tier="gpu5x24")])
def test_a_run_that_ended_otherwise_is_not(propose, record):
    assert propose(record) is None


def test_tolerances_and_history_stay(propose, tmp_path):
    propose(passed(peak=20.0))
    file = next((tmp_path / "baselines").glob("*/*.toml"))
    file.write_text(file.read_text().replace("rel = 0.001", "rel = 0.002"))
    case = propose(passed(peak=19.0))
    assert peak(case) == 19.0
    assert case.metrics["peak_vram_gib"].rel == 0.002


def test_a_path_that_is_not_there(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert "\nnext: " in capsys.readouterr().err
