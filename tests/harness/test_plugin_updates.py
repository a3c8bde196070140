"""Sessions that update baselines, and sessions with waivers."""

import math
from dataclasses import replace
from datetime import date, timedelta

import pytest
from canned import failed, passed, ran_out
from lab import said

from suites.harness.verdicts.baselines import read_baseline
from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

pytest_plugins = ["pytester"]

NAN = passed(quality={"latent_cosine": math.nan})


def test_an_update_accepts_better_values_and_never_touches_tolerances(lab):
    lab.baseline(passed(peak=20.0))
    text = lab.files[0].read_text()
    lab.files[0].write_text(text.replace("rel = 0.001", "rel = 0.002"))
    lab.put(passed(peak=19.0))
    result = lab.run("--baseline-update")
    assert result.ret == 0
    assert "updated" in said(result)
    entry = read_baseline(lab.files[0]).cases["published_sharded"].metrics["peak_vram_gib"]
    assert (entry.value, entry.rel) == (19.0, 0.002)


def test_an_update_that_changes_nothing_writes_no_byte(lab):
    lab.baseline(passed())
    before = lab.files[0].read_bytes(), lab.files[0].stat().st_mtime_ns
    lab.put(passed(commit="2222222", date=date(2027, 1, 1)))
    assert lab.run("--baseline-update").ret == 0
    assert (lab.files[0].read_bytes(), lab.files[0].stat().st_mtime_ns) == before


def test_an_update_with_a_worse_value_needs_a_reason(lab):
    lab.baseline(passed(peak=20.0))
    before = lab.files[0].read_bytes()
    lab.put(passed(peak=21.0))
    refused = lab.run("--baseline-update")
    assert refused.ret == EXIT_CODES[Verdict.REGRESSED]
    assert "--baseline-reason" in said(refused)
    assert lab.files[0].read_bytes() == before
    assert lab.run("--baseline-update", "--baseline-reason", "sharper decoder").ret == 0
    assert read_baseline(lab.files[0]).cases["published_sharded"].history == (
        "2026-11-20 1f0c2ab: peak_vram_gib 20 -> 21: sharper decoder",
    )


@pytest.mark.parametrize(
    "record",
    [failed("hang"), NAN, passed(peak=22.5, quality={"latent_cosine": 0.99})],
    ids=["hang", "nan", "over-limit"],
)
def test_an_update_takes_over_nothing_that_is_wrong(lab, record):
    lab.baseline(passed(quality={"latent_cosine": 0.99}))
    before = lab.files[0].read_bytes()
    lab.put(record)
    assert lab.run("--baseline-update", "--baseline-reason", "please").ret >= 10
    assert lab.files[0].read_bytes() == before


def test_new_only_adds_what_has_none_and_still_judges_the_rest(lab):
    lab.baseline(passed(peak=20.0))
    lab.put(passed(peak=20.0, quality={"latent_cosine": 0.99}))
    assert lab.run("--baseline-update-new-only").ret == 0
    assert "latent_cosine" in lab.files[0].read_text()
    lab.put(passed(peak=21.0, quality={"latent_cosine": 0.99}))
    assert lab.run("--baseline-update-new-only").ret == EXIT_CODES[Verdict.REGRESSED]
    assert "value = 20.0" in lab.files[0].read_text()


WAIVER = """
[[waiver]]
case = "gpu5x24/published_sharded"
machine = "{machine}"
reason = "allocator of torch 2.13"
link = "https://example.org/412"
expires = {expires}
"""


def waive(lab, *, machine="simulated-rtx4090x5", days=0):
    expires = date(2026, 11, 20) + timedelta(days=days)
    (lab.folder / "baselines/waivers.toml").write_text(WAIVER.format(machine=machine, expires=expires))


def test_a_waiver_excuses_a_regression_until_its_day(lab):
    lab.baseline(passed(peak=20.0))
    lab.put(passed(peak=21.0))
    waive(lab)
    result = lab.run()
    assert result.ret == 0
    assert "waived, regressed:" in said(result)
    assert "allocator of torch 2.13" in said(result)


def test_an_expired_waiver_excuses_nothing_and_is_reported(lab):
    lab.baseline(passed(peak=20.0))
    lab.put(passed(peak=21.0))
    waive(lab, days=-1)
    result = lab.run()
    assert result.ret == EXIT_CODES[Verdict.REGRESSED]
    assert "expired on 2026-11-19" in said(result)


def test_a_waiver_of_another_machine_excuses_nothing(lab):
    lab.baseline(passed(peak=20.0))
    lab.put(passed(peak=21.0))
    waive(lab, machine="simulated-rtx4090x4")
    assert lab.run().ret == EXIT_CODES[Verdict.REGRESSED]


def test_no_waiver_excuses_a_number_that_is_none(lab):
    lab.baseline(passed(quality={"latent_cosine": 0.99}))
    lab.put(NAN)
    waive(lab)
    assert lab.run().ret == EXIT_CODES[Verdict.INVALID_METRIC]


def test_a_waiver_that_was_not_needed_and_an_entry_of_no_case_are_reported(lab):
    lab.baseline(passed())
    waive(lab)
    text = lab.files[0].read_text()
    lab.files[0].write_text(text + "\n" + text[text.index('["') :].replace("published_sharded", "removed"))
    result = lab.run()
    assert result.ret == 0
    assert "was not needed" in said(result)
    assert "'removed' belongs to no case of gpu5x24" in said(result)


def test_a_case_that_was_only_not_selected_is_not_reported_as_unused(lab):
    lab.tests("gpu5x24", "published_sharded", "published_replicated")
    lab.put(replace(ran_out(phase="prefill"), tier="gpu5x24", case="published_replicated"))
    lab.baseline(passed())
    assert "belongs to no case" not in said(lab.run("-k", "published_sharded"))
