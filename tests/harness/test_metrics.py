"""The one table of metrics: what each name means."""

import runpy
from dataclasses import replace

import pytest
from canned import memory, passed, physical, ran_out

from liveavatar_core.errors import GIB
from suites.harness.verdicts import metrics as table
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


REVIEWED = """
load_vram_gib                  GiB lower 6 0.02 0.25 0.001 0.0001 gated amount 1024
peak_vram_gib                  GiB lower 6 0.02 0.25 0.001 0.0001 gated amount 1024
oom_requested_gib              GiB lower 6 0.02 0.25 0.001 0.0001 gated amount 1024
oom_shortfall_gib              GiB lower 6 0.02 0.25 0.001 0.0001 gated amount 1024
seconds_per_clip               s lower 3 0.05 0.25 0.05 0.25 gated amount 86400
first_frame_seconds            s lower 3 0.05 0.25 0.05 0.25 gated amount 86400
predicted_seconds_per_clip     s lower 3 0.005 0.01 0.005 0.01 gated amount 86400
nan_blocks_count               blocks lower 4 0 0.5 0 0.5 gated number inf
sharpness_ratio                - higher 4 0.1 0.02 0.1 0.02 gated number inf
lip_sync_lag_ms                ms nearer_to_0 4 0 20 0 20 gated number inf
latent_cosine                  - higher 4 0 0.001 0 0.001 gated number inf
ssim                           - higher 4 0.05 0.01 0.05 0.01 shown number inf
gib                            GiB lower 6 0.02 0.25 0.001 0.0001 gated amount 1024
seconds                        s lower 3 0.05 0.25 0.05 0.25 gated amount 86400
"""
"""Unit, which way is better, places kept, tolerance measured and counted, gated, an amount, the most: as reviewed."""


def in_words(kind) -> str:
    measured, counted = kind.default_tolerance("physical"), kind.default_tolerance("simulated")
    assert counted == kind.default_tolerance("miniature")
    assert measured == kind.default_tolerance("partitioned")
    words = [kind.name, kind.unit or "-", kind.better.replace(" ", "_"), str(kind.decimals)]
    words += [f"{number:g}" for number in (measured.rel, measured.abs, counted.rel, counted.abs)]
    words += ["gated" if kind.gated else "shown", "amount" if kind.is_amount else "number", f"{kind.most:g}"]
    return " ".join(words)


def test_rows_are_as_they_were_reviewed():
    """The table is made anew: a slip in what makes its rows would loosen every number of a kind at once."""
    made = runpy.run_path(table.__file__, run_name=table.__name__)
    rows = {kind.name: kind for kind in (*made["FAMILIES"], *made["METRICS"])}
    for line in REVIEWED.strip().splitlines():
        words = " ".join(line.split())
        assert in_words(rows[words.split()[0]]) == words
    titles = [rows[name].heading for name in ("peak_vram_gib", "seconds_per_clip", "ssim", "psnr_db")]
    assert titles == [
        "Peak a card, GiB",
        "Time a clip, s",
        "Structural similarity to the reference",
        "Likeness of frames to the reference, dB",
    ]
    assert not any(rows[name].gated for name in ("ssim", "vmaf_score"))


def test_a_request_of_unknown_size_is_missing_and_says_why():
    shortage = replace(ran_out().out_of_memory, requested=None)
    found = metrics(ran_out(out_of_memory=shortage))
    for name in ("oom_requested_gib", "oom_shortfall_gib"):
        assert (found[name].name, found[name].samples) == (name, ())
        assert found[name].reason == "the library that ran out does not say of how many bytes"


def test_host_memory_is_that_of_all_ranks_each_at_its_fullest():
    readings = [memory(rank, phase, 1.0) for rank in (0, 1) for phase in ("load", "denoise")]
    sizes = (10, 30, 7, 5)
    held = tuple(replace(each, host_bytes=size) for each, size in zip(readings, sizes, strict=True))
    assert passed(memory=held).host_bytes == 37
    assert passed(memory=(*held[:3], replace(held[3], host_bytes=None))).host_bytes is None
    assert passed(memory=(replace(held[0], host_bytes=None), *held[1:])).host_bytes is None
    assert passed(memory=()).host_bytes is None
    assert passed(memory=tuple(replace(each, host_bytes=0) for each in readings)).host_bytes == 0
