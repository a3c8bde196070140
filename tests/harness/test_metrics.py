"""The one table of metrics: what each name means."""

import pytest
from canned import memory, passed, physical, ran_out

from liveavatar_core.errors import GIB
from suites.harness.verdicts.measured import metrics
from suites.harness.verdicts.metrics import FAMILIES, METRICS, WITHOUT_UNIT, metric_kind, worsening


@pytest.mark.parametrize("record", [passed(), ran_out(), physical(clips=(20.0,))], ids=lambda record: record.outcome)
def test_whatever_a_run_measures_has_a_row_of_its_own(record):
    assert [name for name in metrics(record) if metric_kind(name).name != name] == []


def test_names_are_unique_and_rows_complete():
    names = [kind.name for kind in (*METRICS, *FAMILIES)]
    assert len(set(names)) == len(names)
    assert all(kind.title and kind.decimals > 0 for kind in METRICS)


def test_a_name_that_ends_in_a_metrics_name_is_of_its_kind():
    assert metric_kind("clip_2_psnr_db") is metric_kind("psnr_db")
    assert metric_kind("host_peak_gib").is_amount
    assert metric_kind("tokens") is WITHOUT_UNIT


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("peak_vram_gib", 20.0, 21.0, 1.0),
        ("psnr_db", 40.0, 38.0, 2.0),
        ("lip_sync_lag_ms", -20.0, 10.0, -10.0),
    ],
)
def test_worse_is_a_positive_number_whichever_way_is_better(name, before, after, expected):
    assert worsening(name, before, after) == expected


def test_a_program_that_counts_has_tighter_tolerances_than_an_instrument():
    peak, predicted = metric_kind("peak_vram_gib"), metric_kind("predicted_seconds_per_clip")
    assert (peak.default_tolerance("simulated").rel, peak.default_tolerance("physical").rel) == (0.001, 0.02)
    assert predicted.default_tolerance("simulated").abs == 0.01
    assert metric_kind("seconds_per_clip").default_tolerance("physical").abs == 0.25


def test_baselines_keep_memory_to_a_kib_time_to_a_millisecond_quality_to_four_places():
    kept = [metric_kind(name).rounded(1.23456789) for name in ("peak_vram_gib", "seconds_per_clip", "psnr_db")]
    assert kept == [1.234568, 1.235, 1.2346]


def test_the_fullest_rank_counts_whichever_it_is():
    fuller = passed(memory=tuple(memory(rank, "load", 10.0 + rank) for rank in (0, 1)))
    assert fuller.peak_bytes() == fuller.peak_bytes(rank=1) == 11 * GIB
    assert metrics(fuller)["peak_vram_gib"].value == metrics(fuller)["load_vram_gib"].value == 11.0
