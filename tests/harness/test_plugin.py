"""The plugin as a lab meets it: sessions of pytest whose hardware mode returns what a test put there.

The stand-in for a hardware mode is there to test the judge, and nothing else.
"""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from canned import failed, passed, physical, ran_out

from suites.harness.baseline import read_baseline
from suites.harness.record import RunRecord, read_record
from suites.harness.verdict import EXIT_CODES, Verdict

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

CONFTEST = """
import sys, types
from pathlib import Path
from suites.harness.record import RunRecord

pytest_plugins = ["suites.harness.plugin"]
FOLDER = Path(__file__).parent

def install(mode_name):
    class Mode:
        name = mode_name
        def why_not(self, tier):
            return None if (FOLDER / f"{mode_name}.ok").exists() else f"no {mode_name} cards"
        def run(self, tier, case, folder):
            assert folder.is_dir() and not list(folder.iterdir())
            (folder / "log").write_text("log")
            runs = FOLDER / f"{tier.name}.{case.name}.runs"
            with runs.open("a") as file:
                file.write("x")
            paths = sorted(FOLDER.glob(f"{tier.name}.{case.name}.*.canned"))
            text = paths[min(runs.stat().st_size, len(paths)) - 1].read_text()
            return RunRecord.from_json(text)
    module = types.ModuleType(f"suites.harness.hardware.{mode_name}")
    module.Mode = Mode
    sys.modules[module.__name__] = module

for mode in ("physical", "partitioned", "simulated", "miniature"):
    install(mode)
"""

TEST = """
import pytest
pytestmark = pytest.mark.{tier}

@pytest.mark.parametrize("case", {cases})
def test_case(tier, case):
    tier.check(case)
"""


class Lab:
    """A folder with canned runs, and sessions in it."""

    def __init__(self, pytester):
        self.pytester = pytester
        self.folder = pytester.path
        pytester.makeconftest(CONFTEST)
        self.offer("simulated")
        self.tests("gpu5x24", "published_sharded")

    def offer(self, mode):
        (self.folder / f"{mode}.ok").write_text("")

    def tests(self, tier, *cases):
        (self.folder / f"test_{tier}.py").write_text(TEST.format(tier=tier, cases=list(cases)))

    def put(self, *records: RunRecord):
        """What the case's first, second, … run returns; the last one again and again."""
        for old in self.folder.glob(f"{records[0].tier}.{records[0].case}.*"):
            old.unlink()
        for index, record in enumerate(records):
            name = f"{record.tier}.{record.case}.{index}.canned"
            (self.folder / name).write_text(record.to_json())

    def run(self, *options):
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)

    def run_apart(self, *options):
        """In a process of its own: pytester cannot report on a session that ends before it starts."""
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)

    def baseline(self, record: RunRecord, *options):
        """Make `record` the baseline."""
        self.put(record)
        assert self.run("--baseline-update", *options).ret == 0

    @property
    def files(self):
        return sorted(self.folder.glob("baselines/*/*.toml"))


@pytest.fixture
def lab(pytester, monkeypatch) -> Lab:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Lab(pytester)


def said(result) -> str:
    return result.stdout.str() + result.stderr.str()


def test_without_a_baseline_a_good_run_passes_and_says_what_to_do(lab):
    lab.put(passed())
    result = lab.run()
    assert result.ret == 0
    assert "needs-baseline: gpu5x24/published_sharded on simulated cards" in said(result)
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


@pytest.mark.parametrize(
    ("record", "verdict", "words"), FAILURES, ids=lambda value: getattr(value, "value", "")
)
def test_each_kind_of_failure_has_a_verdict_and_an_exit_code_of_its_own(lab, record, verdict, words):
    lab.baseline(passed(quality={"latent_cosine": 0.99}))
    quality = (
        record.quality
        if verdict in (Verdict.MISSING_METRIC, Verdict.INVALID_METRIC)
        else {"latent_cosine": 0.99}
    )
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
    result.stdout.fnmatch_lines(
        ["gpu4x24 simulated*oom*20.0, 19.0*22.15 GiB*", "*published_sharded*encode*-3.26*"]
    )


@pytest.mark.parametrize(
    "record", [failed("crash"), failed("hang"), failed("unsupported"), ran_out(phase="load")]
)
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


@pytest.mark.parametrize("level", ["warn", "off"])
def test_a_difference_can_be_only_a_warning_or_nothing(lab, level):
    lab.baseline(passed(peak=20.0))
    lab.put(passed(peak=21.0))
    result = lab.run(f"--baseline-compare={level}")
    assert result.ret == 0
    assert ("regressed:" in said(result)) is (level == "warn")


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
    result = lab.run("--hardware=physical", "-rs")
    assert result.ret == 0
    assert "physical: no physical cards" in said(result)
    result.assert_outcomes(skipped=1)


@pytest.mark.parametrize("option", ["--hardware=physical", "--hardware=auto"])
def test_missing_cards_fail_where_hardware_is_required(lab, option):
    result = lab.run(option, "--require-hardware")
    assert result.ret == 1
    assert "no physical cards" in said(result)
    assert "next: " in said(result)


def test_auto_takes_the_most_real_mode_that_the_machine_allows(lab):
    lab.offer("partitioned")
    lab.offer("miniature")
    lab.put(passed(hardware="partitioned"))
    lab.run().stdout.fnmatch_lines(["gpu5x24 partitioned *", "  published_sharded *", "  emulated"])


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
    added = (ROOT / "suites/added_tiers/test_added_tiers.py").read_text()
    (lab.folder / "test_added.py").write_text(added)
    lab.put(passed(tier="lab2x48", case="sharded"))
    result = lab.run("--tiers", "lab.toml", "-m", "lab2x48", "-v")
    result.assert_outcomes(passed=1, deselected=1)
    assert "test_ends_as_its_file_says[lab2x48-sharded-auto]" in said(result)


def test_a_test_without_a_tier_is_told_how_to_name_one(lab):
    (lab.folder / "test_none.py").write_text("def test_none(tier):\n    tier.check('x')\n")
    assert "next: write pytestmark" in said(lab.run("test_none.py"))


def test_records_and_history_are_kept(lab):
    lab.put(passed())
    lab.run("--history", "history.jsonl")
    lab.run("--history", "history.jsonl")
    assert read_record(lab.folder / "report/records/gpu5x24.published_sharded.simulated.json") == passed()
    lines = [json.loads(line) for line in (lab.folder / "history.jsonl").read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["needs-baseline", "needs-baseline"]


def test_a_history_that_cannot_be_written_is_said_in_two_lines(lab):
    lab.put(passed())
    result = lab.run("--history", ".")
    assert result.ret == 2
    assert "next: give --history" in said(result)


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
    result = lab.run_apart("-n", "2", "--baseline-update", "--history", "history.jsonl")
    assert result.ret == 0
    assert set(read_baseline(lab.files[0]).cases) == {"published_sharded", "published_replicated"}
    assert len((lab.folder / "history.jsonl").read_text().splitlines()) == 2
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
    table = text.split("conformance")[1].split("needs-baseline:")[0]
    assert max(len(line) for line in table.splitlines()) <= 80
    for words in ("published_replicated", "prefill", "-3.26", "+2.15", "8.12", "predicted", "needs-baseline"):
        assert words in table


def test_collecting_is_quick_and_free_of_torch(tmp_path):
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys\n"
        "def pytest_sessionfinish():\n"
        "    heavy = ('torch', 'transformers', 'hypothesis')\n"
        "    print('loaded:', [name for name in heavy if name in sys.modules])\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "probe",
        "--collect-only",
        "-q",
        "-m",
        "gpu5x24",
        "suites",
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    before = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - before
    assert "loaded: []" in done.stdout
    assert done.returncode == 0
    assert seconds < 8, "1.5 s where nothing else runs; this catches what doubles it on a busy machine"


@pytest.mark.parametrize(
    "module",
    [
        *(
            "record",
            "measures",
            "stats",
            "baseline",
            "baseline_update",
            "compare",
            "waivers",
            "verdict",
            "judge",
        ),
        *("machine", "session", "tiers", "options", "tier_runner", "plugin", "report.terminal", "hardware"),
    ],
)
def test_what_only_compares_numbers_never_imports_torch(module):
    code = f"import sys, suites.harness.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
