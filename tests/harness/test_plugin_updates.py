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
    assert f"{lab.files[0].relative_to(lab.folder)}: peak_vram_gib 20 -> 19\nnext: review it: git diff" in said(result)
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
    taken = lab.run("--baseline-update", "--baseline-reason", "sharper decoder")
    assert taken.ret == 0
    assert "updated: gpu5x24/published_sharded on simulated cards, " in said(taken)
    assert "peak_vram_gib 20 -> 21" in said(taken)
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
verdict = "{verdict}"
reason = "allocator of torch 2.13"
link = "https://example.org/412"
since = {since}
expires = {expires}
"""


TODAY = date(2026, 11, 20)
"""Of the canned runs."""


def waive(lab, *, machine="simulated-rtx4090x5", days=0, since=-30, verdict="regressed", more=""):
    """Write a waiver that begins and ends so many days after the canned runs."""
    days_of = {"since": TODAY + timedelta(days=since), "expires": TODAY + timedelta(days=days)}
    text = WAIVER.format(machine=machine, verdict=verdict, **days_of)
    (lab.folder / "baselines/waivers.toml").write_text(text + more)


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


def test_a_waiver_that_begins_tomorrow_excuses_nothing(lab):
    lab.baseline(passed(peak=20.0))
    lab.put(passed(peak=21.0))
    waive(lab, since=1, days=2)
    assert lab.run().ret == EXIT_CODES[Verdict.REGRESSED]


@pytest.mark.parametrize("record", [failed("crash"), failed("hang"), replace(ran_out(), tier="gpu5x24")])
def test_a_waiver_for_a_regression_excuses_no_other_failure(lab, record):
    lab.baseline(passed())
    lab.put(record)
    waive(lab)
    assert lab.run().ret == EXIT_CODES[Verdict.OUTCOME_CHANGED]


@pytest.mark.parametrize(("outcome", "status"), [("crash", 0), ("hang", EXIT_CODES[Verdict.OUTCOME_CHANGED])])
def test_a_waiver_for_a_crash_excuses_no_hang(lab, outcome, status):
    lab.baseline(passed())
    lab.put(failed(outcome))
    waive(lab, verdict="outcome-changed", more='outcome = "crash"\n')
    assert lab.run().ret == status


def test_two_failures_take_two_waivers(lab):
    quality = {"latent_cosine": 0.99}
    lab.baseline(passed(peak=20.0, quality=quality))
    lab.put(passed(peak=21.9, quality={"latent_cosine": 0.5}))
    lab.files[0].write_text(lab.files[0].read_text().replace("limit = 22.15", "limit = 21.5"))
    waive(lab)
    assert lab.run().ret == 1, "over-limit is not excused, and the regression beside it is not either"
    path = lab.folder / "baselines/waivers.toml"
    path.write_text(path.read_text() + path.read_text().replace('"regressed"', '"over-limit"'))
    assert lab.run().ret == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"days": 400_000}, "ends within 90 days"),
        ({"days": 61}, "ends within 90 days"),
        ({"since": 1, "days": 0}, "ends within 90 days"),
        ({"verdict": "invalid-metric"}, "invalid-metric"),
        ({"verdict": "outcome-changed"}, "outcome belongs to verdict outcome-changed"),
        ({"more": 'outcome = "crash"\n'}, "outcome belongs to verdict outcome-changed"),
    ],
    ids=str,
)
def test_a_waiver_that_excuses_too_much_ends_the_session(lab, changes, named):
    waive_folder = lab.folder / "baselines"
    waive_folder.mkdir(exist_ok=True)
    waive(lab, **changes)
    result = lab.run_apart()
    assert result.ret == 2
    assert named in result.stderr.str()


def test_a_waiver_of_another_verdict_is_reported_as_not_needed(lab):
    lab.baseline(passed(peak=20.0))
    lab.put(passed(peak=21.0))
    waive(lab, verdict="over-limit")
    assert "waiver of over-limit of gpu5x24/published_sharded on simulated-rtx4090x5 was not needed" in " ".join(
        said(lab.run()).split()
    )


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
