"""Two runs side by side, in a terminal and in a browser."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_runs import HOSTILE, fitting, hostile, ran_out, reading

from liveavatar_core.errors import GIB
from suites.harness.records.measurements import SimulatedRole, Timing
from suites.harness.records.record import RunRecord
from suites.harness.report.compare_runs import main, render_comparison
from suites.harness.report.comparison import compare_paths

ROLE = SimulatedRole(
    rank=0, stands_for=(0, 1), units_executed=1, units_repeated=2, predicted_seconds_by_kind={"matmul": 5.0}
)


@pytest.fixture
def sessions(tmp_path, monkeypatch):
    """Writes a report folder of records, and gives its path."""
    monkeypatch.setenv("COLUMNS", "200")

    def write(name: str, *records: RunRecord):
        for record in records:
            record.write(tmp_path / name)
        return tmp_path / name

    return write


def told(capsys, *arguments) -> list[str]:
    assert main([str(each) for each in arguments]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_memory_stands_by_rank_phase_and_category(sessions, capsys):
    moved = tuple(
        reading(1, "denoise", 13.5) if (each.rank, each.phase) == (1, "denoise") else each for each in fitting().memory
    )
    lines = told(capsys, sessions("a", fitting()), sessions("b", fitting(memory=moved)))
    assert lines[0].startswith("gpu4x24 bf16_sharded simulated: 2 values differ, ")
    assert "memory rank 1, denoise, GiB 12 13.5 +1.5 (+12.5%)" in lines
    assert "memory rank 1, denoise, parameters, GiB 12 13.5 +1.5 (+12.5%)" in lines
    assert not any("rank 0" in line for line in lines), "what is alike is not listed"
    spread = replace(moved[-1], by_category={"parameters": 13 * GIB, "kv_cache": GIB // 2, "activations": 0})
    lines = told(capsys, sessions("c", fitting()), sessions("d", fitting(memory=(*moved[:-1], spread))))
    assert "memory rank 1, denoise, KV cache, GiB – 0.5" in lines
    assert not any("activations" in line for line in lines), "nothing was ever held"


def test_ranks_of_which_both_say_the_same_share_a_row(sessions, capsys):
    moved = tuple(reading(rank, "load", 11.5) for rank in (0, 1))
    lines = told(capsys, sessions("a", fitting()), sessions("b", fitting(memory=moved)))
    assert "memory ranks 0–1, load, GiB 11 11.5 +0.5 (+4.5%)" in lines
    assert "memory ranks 0–1, denoise, GiB 12 –" in lines, "a phase that the second has not"


def test_seconds_quality_settings_and_endings_stand_side_by_side(sessions, capsys):
    slow = replace(ROLE, predicted_seconds_by_kind={"matmul": 6.0})
    before = fitting(simulated_roles=(ROLE,), quality={"psnr_db": 40.0})
    timing = Timing(predicted_seconds_per_clip=20.77, predicted_first_clip_seconds=30.0)
    after = fitting(simulated_roles=(slow,), quality={"psnr_db": 38.0}, timing=timing, commit="abc")
    lines = told(capsys, sessions("a", before), sessions("b", after), "--all")
    assert "seconds a clip, predicted, s 19.77 20.77 +1 (+5.1%)" in lines
    assert "seconds first clip, predicted, s – 30" in lines
    assert "seconds rank 0, predicted, matmul, s 5 6 +1 (+20.0%)" in lines
    assert any("(psnr_db), dB 40 38 -2 (-5.0%)" in line for line in lines)
    assert "machine commit 1f0c2ab abc" in lines
    assert "settings deployment.storage_dtype bfloat16 bfloat16" in lines, "alike, and all were asked for"


def test_two_records_of_different_cases_are_compared(sessions, capsys):
    first = next((sessions("a", ran_out()) / "records").glob("*.json"))
    second = next((sessions("b", fitting()) / "records").glob("*.json"))
    lines = told(capsys, first, second)
    assert lines[0].startswith("gpu4x24 published_sharded simulated against gpu4x24 bf16_sharded simulated: ")
    assert "settings deployment.storage_dtype float32 bfloat16" in lines
    assert any(line.startswith("ending ends in out of memory in encode for gathered") for line in lines)


def test_runs_of_one_session_alone_are_said(sessions, capsys):
    first, second = sessions("a", fitting(), ran_out()), sessions("b", fitting())
    lines = told(capsys, first, second)
    assert lines[0].startswith("gpu4x24 bf16_sharded simulated: all ")
    assert lines[-1] == f"gpu4x24 published_sharded simulated: in {first} only"


@pytest.mark.parametrize("names", [("a", "none"), ("a", "empty"), ("a/records/x.json", "a")])
def test_what_cannot_be_compared_is_refused_in_two_lines(sessions, tmp_path, capsys, names):
    sessions("a", fitting())
    (tmp_path / "empty").mkdir()
    (tmp_path / "a/records/x.json").write_text(fitting().to_json())
    assert main([str(tmp_path / name) for name in names]) == 2
    assert capsys.readouterr().err.count("next: ") == 1


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_of_a_comparison_fits_and_stays_text(sessions, show, width):
    odd = replace(hostile(), tier="odd", case="odd")
    before = sessions("a", fitting(), odd)
    found = compare_paths(before, sessions("b", fitting(limit_bytes=20 * GIB), odd, ran_out()))
    page = show(render_comparison(found, HOSTILE, "b"), width=width, scheme="dark")
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("article").count() == 2
    assert page.locator("table.compared td").all_inner_texts() == ["limit, GiB", "22.15", "20", "-2.15 (-9.7%)"]
    assert page.evaluate("window.owned") is None
    assert "published_sharded simulated: in " in page.locator(".next").inner_text()
