"""The page says where seconds went, how frames came and what NCCL said; sessions and comparisons say it too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_runs import HOSTILE, fitting, judged, measured, settings

from suites.harness.cases.tiers import read_tiers
from suites.harness.pytest_plugin.session import Session
from suites.harness.records.measurements import Timing
from suites.harness.records.nccl import NcclReport, NcclWarning
from suites.harness.records.record import DeclaredRecipe
from suites.harness.records.run_times import FrameArrivals, PartSeconds
from suites.harness.report.comparison import pair
from suites.harness.report.html import render_html

TIERS = read_tiers()
CLIPS = (20.0, 21.0, 22.0, 23.0, 24.0)
TIMING = Timing(
    load_seconds=61.0,
    first_frame_seconds=44.0,
    warm_up_clips=2,
    measured_clips=5,
    warm_up_seconds=(90.0, 25.0),
    clip_seconds=CLIPS,
    parts=(
        PartSeconds(rank=0, part="encode", seconds=(4.0,)),
        PartSeconds(rank=0, part="denoise", seconds=(10.0, 11.0, 12.0, 13.0, 14.0)),
        PartSeconds(rank=1, part="denoise", seconds=(9.0, 10.0, 11.0, 12.0, 13.0)),
        PartSeconds(rank=1, part="waiting", seconds=(1.0,) * 5),
    ),
    arrivals=FrameArrivals(seconds=(100.0, 105.0, 110.0, 115.0), frames=(12, 12, 12, 12)),
    comparable=True,
)
NCCL = NcclReport(
    version="2.27.5",
    cuda="12.9",
    nodes=1,
    communicators=(4, 3),
    links={"PCI": 24.0},
    transports={"SHM/direct/direct": 8},
    collective_channels=2,
    nvls_channels=0,
    peer_channels=2,
    warnings=(NcclWarning(rank=1, text="P2P is disabled between connected GPUs 1 and 0."),),
)


def page_of(folder, *records) -> str:
    options = settings(folder)
    return render_html([judged(record, options) for record in records], TIERS, options)


def rows_of(page, selector: str) -> list[list[str]]:
    page.locator("details", has=page.locator(selector)).first.evaluate("each => each.open = true")
    return [row.split("\t") for row in page.locator(f"{selector} tbody tr").all_inner_texts()]


def test_each_metric_of_time_has_its_median_its_spread_and_the_number_of_its_samples(show, tmp_path):
    page = show(page_of(tmp_path, measured(timing=TIMING)))
    rows = {row[0]: row[1:] for row in rows_of(page, "table.times")}
    assert rows["Time a clip, s"] == ["22", "2", "5"]
    assert rows["Time to load the model, s"] == ["61", "–", "1"], "one sample has no spread"
    assert rows["Transformer, a clip, s"] == ["12", "2", "5"], "of the rank that took longest"
    assert rows["Block to block, median, ms"] == ["5000", "–", "1"]
    assert rows["A viewer with a buffer of 1 s runs dry, times"][0] == "1"
    assert "5 clips measured, behind 2 that warmed up (90.00 s, 25.00 s)" in page.locator("main").inner_text()
    assert rows_of(page, "table.rank-times")[1][:1] == ["1"]


def test_a_prediction_stands_line_by_line_beside_what_was_measured_of_other_clips_and_weights(show, tmp_path):
    parts = {"encode": 2.0, "denoise": 6.0, "decode": 3.0}
    simulated = fitting(timing=Timing(predicted_seconds_per_clip=19.77, predicted_seconds_by_part=parts))
    declared = simulated.recipe.declared
    more = declared | {"clip": declared["clip"] | {"num_clip": 7}, "weights": {"digest": "1234"}}
    other = measured(timing=TIMING, recipe=DeclaredRecipe(name="bf16", hash="00000002", declared=more))
    page = show(page_of(tmp_path, simulated, other))
    rows = [row.split("\t") for row in page.locator("table.agreement tbody tr").all_inner_texts()]
    assert ["transformer, a clip", "6.00 s", "12.00 s", "-50.0%"] in rows
    assert ["prompt, voice and portrait", "2.00 s", "4.00 s", "-50.0%"] in rows
    assert not [row for row in rows if row[0].startswith("VAE")], "nobody measured it"


def test_what_nccl_said_is_there_and_its_warnings_are_unfolded(show, tmp_path):
    page = show(page_of(tmp_path, measured(20.0, nccl=NCCL)))
    found = page.locator("details.nccl")
    assert found.locator("summary").inner_text() == "NCCL 2.27.5: SHM"
    assert found.locator(".nccl-warnings").inner_text() == "rank 1: P2P is disabled between connected GPUs 1 and 0."
    assert '{"SHM/direct/direct": 8}' in found.inner_text()
    quiet = show(page_of(tmp_path / "quiet", measured(20.0, nccl=replace(NCCL, warnings=()))))
    assert quiet.locator("details.nccl").get_attribute("open") is None


@pytest.mark.parametrize("width", [320, 1280])
def test_hostile_words_of_nccl_are_only_words_and_nothing_is_wider_than_the_screen(show, tmp_path, width: int):
    warning = NcclWarning(rank=0, text=HOSTILE)
    hostile = replace(NCCL, version=HOSTILE, transports={HOSTILE: 1}, warnings=(warning,))
    page = show(page_of(tmp_path, measured(timing=TIMING, nccl=hostile)), width=width)
    page.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
    assert page.evaluate("window.owned") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_session_says_once_a_case_that_nccl_warned(tmp_path):
    options = settings(tmp_path)
    warnings = (*NCCL.warnings, NcclWarning(rank=2, text="another\x1b[2J"))
    record = measured(20.0, nccl=replace(NCCL, warnings=warnings))
    told = Session(settings=options, tiers={}, results=[judged(record, options)]).notices()
    [notice] = [text for text in told if "NCCL" in text]
    what, step = notice.split("\n")
    assert what == (
        "gpu4x24/bf16_sharded: NCCL warns on rank 1: P2P is disabled between connected GPUs 1 and 0. (and 1 more)"
    )
    assert step == f"next: read {tmp_path}/report/runs/gpu4x24.bf16_sharded.physical/rank*.nccl.log"


def test_two_runs_are_compared_part_by_part():
    slower = tuple(
        replace(each, seconds=tuple(2 * seconds for seconds in each.seconds)) if each.part == "denoise" else each
        for each in TIMING.parts
    )
    before, after = measured(timing=TIMING), measured(timing=replace(TIMING, parts=slower))
    rows = {row.name: (row.before, row.after) for row in pair(before, after).rows if row.group == "seconds"}
    assert rows["Transformer, a clip, s"] == (12.0, 24.0)
    assert rows["Prompt, voice and portrait, s"] == (4.0, 4.0)
