"""The table of the quality suite: a row a record, values as they are there."""

from __future__ import annotations

import pytest
from canned import passed

from liveavatar_core.errors import BadInput
from suites.harness.cases.tiers import read_tiers
from suites.quality.cases_table import TIERS, rows


def test_a_row_for_each_case_that_ran(tmp_path):
    quality = {"latent_cosine": 0.98765, "psnr_db": 41.0, "lip_sync_lag_ms": -40.0, "flicker_levels": 0.5}
    passed(tier="quality2", case="ulysses", hardware="miniature", quality=quality).write(tmp_path)
    passed(tier="quality1", case="fp8", hardware="miniature", quality={"ssim": 0.9}).write(tmp_path)
    head, _, *found = ([cell.strip() for cell in line.strip("|").split("|")] for line in rows(tmp_path))
    assert [row[:2] for row in found] == [["1", "`fp8`"], ["2", "`ulysses`"]]
    ulysses = dict(zip(head, found[1], strict=True))
    assert (ulysses["latent cosine"], ulysses["PSNR dB"], ulysses["lag ms"]) == ("0.9877", "41", "-40")
    assert ulysses["SSIM"] == "–"


def test_without_a_record_there_is_no_table(tmp_path):
    with pytest.raises(BadInput, match="no record"):
        list(rows(tmp_path))


def test_every_case_of_the_suite_is_compared_with_a_reference():
    cases = [case for name in TIERS for case in read_tiers()[name].cases]
    assert cases
    assert all(case.reference_clip is not None and case.miniature_capacity_mib for case in cases)
