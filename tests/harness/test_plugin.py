"""The plugin as a lab meets it: verdicts, exit codes, options, the table."""

import math
from dataclasses import replace

import pytest
from canned import failed, passed, physical, ran_out
from lab import ROOT, said

from suites.harness.records.history import read_history
from suites.harness.records.record import read_record
from suites.harness.verdicts.baselines import read_baseline
from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

pytest_plugins = ["pytester"]


def test_without_a_baseline_a_good_run_passes_and_says_what_to_do(lab):
    lab.put(passed())
    result = lab.run()
    assert result.ret == 0
    assert "needs-baseline: published_sharded\n" in said(result)
    assert "next: pytest -m gpu5x24 --hardware=simulated --baseline-update-new-only" in said(result)
    assert not lab.files


def test_with_its_baseline_it_passes_and_says_nothing(lab):
    lab.baseline(passed())
    result = lab.run()
    assert result.ret == 0
    assert "next:" not in said(result)


NAN = passed(quality={"latent_cosine": math.nan})
UNEXPECTED = replace(ran_out(), tier="gpu5x24")
OTHER_RECIPE = replace(passed(), recipe=replace(passed().recipe, hash="00000000"))
FAILURES = [
    (passed(peak=21.0), Verdict.REGRESSED, "peak_vram_gib 21 against 20"),
    (passed(peak=22.5), Verdict.OVER_LIMIT, "22.5 against a limit of 22.15"),
    (UNEXPECTED, Verdict.OUTCOME_CHANGED, "ran out of memory in encode"),
    (failed("hang"), Verdict.OUTCOME_CHANGED, "ended in hang"),
    (passed(quality={}), Verdict.MISSING_METRIC, "latent_cosine is missing"),
    (NAN, Verdict.INVALID_METRIC, "latent_cosine is nan"),
    (OTHER_RECIPE, Verdict.RECIPE_CHANGED, "recipe 00000000 against 9c41e07b"),
    (failed("infrastructure"), Verdict.INFRASTRUCTURE, "the machine, not the run, failed"),
]


@pytest.mark.parametrize(("record", "verdict", "words"), FAILURES, ids=lambda value: getattr(value, "value", ""))
def test_each_kind_of_failure_has_a_verdict_and_an_exit_code_of_its_own(lab, record, verdict, words):
    lab.baseline(passed(quality={"latent_cosine": 0.99}))
    quality = record.quality if verdict in (Verdict.MISSING_METRIC, Verdict.INVALID_METRIC) else {"latent_cosine": 0.99}
    lab.put(replace(record, quality=quality))
    result = lab.run()
    assert result.ret == EXIT_CODES[verdict]
    assert f"{verdict}: gpu5x24/published_sharded on simulated cards" in said(result)
    assert words in said(result)
    assert "next: " in said(result)
    assert "Traceback" not in said(result)


def test_failures_of_several_kinds_exit_with_pytests_own_code(lab):
    lab.tests("gpu5x24", "published_sharded", "published_replicated")
    lab.put(failed("infrastructure", case="published_replicated"))
    lab.put(UNEXPECTED)
    assert lab.run().ret == 1


def test_a_failure_beside_the_judges_exits_with_pytests_own_code(lab):
    (lab.folder / "test_other.py").write_text("def test_other():\n    assert 0\n")
    lab.put(UNEXPECTED)
    assert lab.run().ret == 1


def test_where_lack_of_memory_is_expected_it_passes_with_its_numbers(lab):
    lab.tests("gpu4x24", "published_sharded")
    lab.put(ran_out())
    result = lab.run("-m", "gpu4x24")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["gpu4x24 simulated*oom*20.0, 19.0*22.15 GiB*", "*published_sharded*encode*-3.26*"])


@pytest.mark.parametrize("record", [failed("crash"), failed("hang"), failed("unsupported"), ran_out(phase="load")])
def test_where_lack_of_memory_is_expected_no_other_end_will_do(lab, record):
    lab.tests("gpu4x24", "published_sharded")
    lab.put(replace(record, tier="gpu4x24"))
    assert lab.run("-m", "gpu4x24").ret == EXIT_CODES[Verdict.OUTCOME_CHANGED]


def test_a_tier_that_fits_now_fails_and_says_promote(lab):
    lab.tests("gpu4x24", "published_sharded")
    lab.put(passed(tier="gpu4x24"))
    result = lab.run("-m", "gpu4x24")
    assert result.ret == EXIT_CODES[Verdict.OUTCOME_CHANGED]
    assert "it fits now" in said(result)
    assert "next: promote this tier" in said(result)


@pytest.mark.parametrize("level", ["warn", "off"])
def test_a_difference_can_be_only_a_warning_or_nothing(lab, level):
    lab.baseline(passed(peak=20.0))
    lab.put(passed(peak=21.0))
    result = lab.run(f"--baseline-compare={level}")
    assert result.ret == 0
    assert ("regressed:" in said(result)) is (level == "warn")
    assert ("not-compared" in said(result)) is (level == "off"), "what was not looked at did not pass"


def test_the_claim_of_a_tier_holds_whatever_happens_to_baselines(lab):
    lab.put(UNEXPECTED)
    assert lab.run("--baseline-compare=off").ret == EXIT_CODES[Verdict.OUTCOME_CHANGED]


def test_an_inconclusive_time_is_measured_again_and_then_only_warned_of(lab):
    lab.offer("physical")
    lab.baseline(physical(clips=(20.0, 22.0, 28.0)))
    lab.put(physical(clips=(21.0, 24.1, 29.0)), physical(clips=(21.5, 24.2, 29.5)))
    result = lab.run()
    assert result.ret == 0
    assert "inconclusive:" in said(result)
    record = read_record(next(lab.folder.glob("report/records/*.physical.json")))
    assert record.timing.clip_seconds == (21.0, 24.1, 29.0, 21.5, 24.2, 29.5)


@pytest.mark.parametrize(
    ("arrange", "named"),
    [
        (lambda lab: lab.files[0].write_text("[machine"), "gpu5x24.toml"),
        (
            lambda lab: (lab.folder / "baselines/waivers.toml").write_text("[[waiver]]\ncase = 1"),
            "waivers.toml",
        ),
        (lambda lab: (lab.folder / "report").unlink() or (lab.folder / "report").write_text(""), "report"),
    ],
    ids=["baseline", "waiver", "report folder"],
)
def test_a_broken_file_ends_the_session_before_anything_runs(lab, arrange, named):
    lab.baseline(passed(), "--report-dir", "elsewhere")
    (lab.folder / "report").write_text("")
    (lab.folder / "gpu5x24.published_sharded.runs").unlink()
    if named != "report":
        (lab.folder / "report").unlink()
    arrange(lab)
    result = lab.run_apart()
    assert result.ret == 2
    assert named in result.stderr.str()
    assert "\nnext: " in result.stderr.str()
    assert "Traceback" not in said(result)
    assert not (lab.folder / "gpu5x24.published_sharded.runs").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--hardware=cloud",),
        ("--baseline-update", "--baseline-update-new-only"),
        ("--tiers", "gone.toml"),
    ],
    ids=lambda options: options[0],
)
def test_options_that_do_not_fit_end_the_session_in_two_lines(lab, options):
    result = lab.run_apart(*options)
    assert result.ret == 2
    assert "\nnext: " in result.stderr.str()
    assert "Traceback" not in said(result)


def test_missing_cards_skip_with_the_reason(lab):
    lab.tests("gpu5x24", "published_sharded", "published_replicated")
    result = lab.run("--hardware=physical")
    assert result.ret == 0
    result.assert_outcomes(skipped=2)
    last = " ".join(result.stdout.lines[-4:])
    assert "not-judged: 2 tests of gpu5x24: gpu5x24 cannot run here physical: no physical cards" in last


@pytest.mark.parametrize("option", ["--hardware=physical", "--hardware=auto"])
def test_missing_cards_fail_where_hardware_is_required(lab, option):
    result = lab.run(option, "--require-hardware")
    assert result.ret == EXIT_CODES[Verdict.INFRASTRUCTURE] == 16
    assert "no physical cards" in said(result)
    assert "next: " in said(result)


def test_auto_takes_the_most_real_mode_that_the_machine_allows(lab):
    lab.offer("partitioned")
    lab.offer("miniature")
    lab.put(passed(hardware="partitioned"))
    lab.run().stdout.fnmatch_lines(["gpu5x24 partitioned *", "  published_sharded *", "  emulated"])


def test_auto_says_why_more_real_modes_were_refused(lab):
    lab.put(passed())
    result = lab.run()
    told = " ".join(said(result).split())
    assert "gpu5x24 simulated was taken by auto, as physical: no physical cards; partitioned: no partitioned" in told
    assert "was taken by auto" not in said(lab.run("--hardware=simulated"))


SKIPPED = """
import pytest
pytestmark = [pytest.mark.gpu5x24, pytest.mark.skip(reason="cards are being moved")]

def test_case(tier):
    tier.check("published_sharded")
"""


@pytest.mark.parametrize(("options", "status"), [((), 0), (("--require-hardware",), 16)])
def test_all_skipped_is_said_and_is_no_success_where_hardware_is_required(lab, options, status):
    (lab.folder / "test_gpu5x24.py").write_text(SKIPPED)
    result = lab.run(*options)
    assert result.ret == status
    assert "not-judged: 1 test of gpu5x24: cards are being moved" in " ".join(said(result).split())


@pytest.mark.parametrize("options", [(), ("--require-hardware", "--hardware=physical")])
def test_a_case_that_cards_cannot_compute_is_refused_and_does_not_fail(lab, options):
    """Its mode is not asked to run it, and no other mode takes it in its place."""
    lab.offer("physical")
    (lab.folder / "physical.lacks").write_text("NVIDIA Old does not multiply float8\nnext: give int8")
    result = lab.run(*options)
    assert result.ret == (16 if options else 0)  # as nothing else was judged
    result.assert_outcomes(skipped=1)
    assert not list(lab.folder.glob("*.runs"))
    told = said(result)
    assert "gpu5x24/published_sharded asks for what these cards do not have: NVIDIA Old does not multiply" in told
    assert "\nnext: give int8" in told


@pytest.mark.parametrize("arguments", ["tier", ""])
def test_a_test_of_a_tier_that_judges_nothing_fails(lab, arguments):
    text = f"import pytest\n\n@pytest.mark.gpu5x24\ndef test_case({arguments}):\n    pass\n"
    (lab.folder / "test_gpu5x24.py").write_text(text)
    result = lab.run()
    assert result.ret == 1
    assert "a test of gpu5x24 that judged nothing" in said(result)


def test_each_mode_that_is_asked_for_runs(lab):
    lab.offer("miniature")
    lab.put(passed())
    result = lab.run("--hardware=simulated,miniature", "-v")
    assert "test_case[simulated-published_sharded]" in said(result)
    assert "test_case[miniature-published_sharded]" in said(result)


LAB_TIERS = """
[lab2x48]
title = "two 48 GB cards"
cards = 2
card = "L40S"
cases.sharded = { recipe = "published_sharded", expect = { outcome = "pass", because = "it fits" } }
"""


def test_a_lab_adds_a_tier_in_one_file(lab):
    (lab.folder / "lab.toml").write_text(LAB_TIERS)
    added = (ROOT / "suites/tiers/test_added_tiers.py").read_text()
    (lab.folder / "test_added.py").write_text(added)
    lab.put(passed(tier="lab2x48", case="sharded"))
    result = lab.run("--tiers", "lab.toml", "-m", "lab2x48", "-v")
    result.assert_outcomes(passed=1, deselected=1)
    assert "test_ends_as_its_file_says[lab2x48-sharded-auto]" in said(result)


@pytest.mark.parametrize("name", ["skip", "xfail"])
def test_a_tier_named_as_a_mark_cannot_hide_a_crash(lab, name):
    (lab.folder / "lab.toml").write_text(LAB_TIERS.replace("lab2x48", name))
    (lab.folder / "test_added.py").write_text((ROOT / "suites/tiers/test_added_tiers.py").read_text())
    lab.put(failed("crash", tier=name, case="sharded"))
    result = lab.run_apart("--tiers", "lab.toml", "test_added.py")
    assert result.ret == 2
    assert f"{name!r} already means something as a pytest marker" in result.stderr.str()


def test_a_tier_named_as_the_mark_of_another_plugin_ends_the_session(lab):
    (lab.folder / "lab.toml").write_text(LAB_TIERS.replace("lab2x48", "slow"))
    other = "def pytest_configure(config):\n    config.addinivalue_line('markers', 'slow: takes long')\n"
    (lab.folder / "other_plugin.py").write_text(other)
    result = lab.run_apart("--tiers", "lab.toml", "-p", "other_plugin")
    assert result.ret == 2
    assert "'slow': another plugin has a marker of that name" in said(result)


def test_a_test_without_a_tier_is_told_how_to_name_one(lab):
    (lab.folder / "test_none.py").write_text("def test_none(tier):\n    tier.check('x')\n")
    assert "next: write pytestmark" in said(lab.run("test_none.py"))


def test_records_and_history_are_kept(lab):
    lab.put(passed())
    lab.run("--history", "history")
    lab.run("--history", "history")
    assert read_record(lab.folder / "report/records/gpu5x24.published_sharded.simulated.json") == passed()
    entries, _ = read_history(lab.folder / "history")
    assert [entry.verdict for entry in entries] == ["needs-baseline", "needs-baseline"]


def test_hostile_text_cannot_move_the_cursor(lab):
    hostile = "\x1b[2J\x1b]0;owned\x07\r"
    record = failed("crash")
    lab.put(replace(record, failure=replace(record.failure, message=hostile)))
    result = lab.run("--color=no")
    assert "\x1b" not in said(result).split("conformance")[-1]


def test_workers_measure_and_one_process_reports(lab):
    lab.tests("gpu5x24", "published_sharded", "published_replicated")
    lab.put(passed())
    lab.put(replace(ran_out(phase="prefill"), tier="gpu5x24", case="published_replicated"))
    result = lab.run_apart("-n", "2", "--baseline-update", "--history", "history")
    assert result.ret == 0
    assert set(read_baseline(lab.files[0]).cases) == {"published_sharded", "published_replicated"}
    assert len(read_history(lab.folder / "history")[0]) == 2
    lab.put(passed(peak=21.0))
    result = lab.run_apart("-n", "2")
    assert result.ret == EXIT_CODES[Verdict.REGRESSED]
    assert said(result).count("next: ") == 2, "once in the failure, once below the table"


def test_the_table_is_readable_at_80_columns(lab, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lab.tests("gpu5x24", "published_sharded", "published_replicated")
    lab.put(passed())
    lab.put(replace(ran_out(phase="prefill"), tier="gpu5x24", case="published_replicated"))
    text = said(lab.run())
    table = text.split("= conformance =")[1].split("needs-baseline:")[0]
    assert max(len(line) for line in table.splitlines()) <= 80
    for words in ("published_replicated", "prefill", "-3.26", "+2.15", "8.12", "predicted", "needs-baseline"):
        assert words in table


def test_quality_stands_below_the_table(lab):
    values = {"lip_sync_strength": 0.8765432, "black_frames_share": 0.0, "sharpness_ratio": 1.5, "flicker_levels": 0.25}
    lab.put(passed(quality=values, quality_missing={"lip_sync_lag_ms": "the sound is silent"}))
    lines = said(lab.run()).splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("quality of gpu5x24 published_sharded"))
    told = " ".join(line.strip() for line in lines[start : start + 3])
    assert "simulated: lip_sync_strength 0.8765, sharpness_ratio 1.5, flicker_levels 0.25" in told
    assert all(len(line) <= 80 for line in lines[start : start + 3])
