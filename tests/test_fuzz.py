"""Fuzzing finds faults that are injected, makes what it finds small, keeps it, and says how to run it again."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import PATIENCE

from liveavatar_core import config
from liveavatar_core.config import Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadData
from suites.fuzz.__main__ import main
from suites.fuzz.case import FuzzCase, changed, keep, kept_cases, read_case
from suites.fuzz.catalogue import PROFILES, RULES, Profile
from suites.fuzz.quality_limits import floors, too_bad

ROOT = Path(__file__).parents[1]

FOUND_BY = {
    "cache_not_freed": "holdings",
    "dtype_dropped": "holdings",
    "leak_per_clip": "clips",
    "uneven_heads": "video",
    "wrong_clip": "video",
    "voice_drifts": "quality",
}
"""Injected fault -> the rule that it breaks."""


SLOW = ("video", "quality")
"""Rules that look at videos: those take ten seconds and more, until ranks have started."""
INJECTED = [
    pytest.param(fault, rule, marks=pytest.mark.nightly if rule in SLOW else ()) for fault, rule in FOUND_BY.items()
]


@pytest.mark.parametrize(("fault", "rule"), INJECTED)
def test_a_planted_fault_is_found(fault: str, rule: str, record_property, capsys) -> None:
    """By the cases of continuous integration."""
    from suites.fuzz.run_rule import run_rule

    found = run_rule(rule, PROFILES["ci"], fault=fault, shrink=False)
    record_property("fuzz", str(found))
    with capsys.disabled():
        print(f"\n{fault}: {'found' if found.broken else 'NOT FOUND'} by {found}; {found.why.splitlines()[:1]}")
    assert found.broken is not None


def test_every_fault_is_planted_and_every_rule_checked() -> None:
    from suites.fuzz.injected_faults import FAULTS
    from suites.fuzz.rules import CHECKS

    assert FOUND_BY.keys() == FAULTS.keys()
    assert CHECKS.keys() == RULES.keys()


def test_what_is_found_is_made_small_and_runs_again(monkeypatch, tmp_path) -> None:
    """With the check of types gone; where it is there, the same case holds."""
    from suites.fuzz.run_rule import run_rule

    with monkeypatch.context() as patch:
        patch.setattr(config, "check_types", lambda declared: None)
        found = run_rule("refusal", replace(PROFILES["ci"], shrink_seconds=PATIENCE))
    assert found.broken is not None
    assert found.broken.recipe.hash == Recipe(name="the simplest that is drawn", clip=SIMPLEST).hash
    assert len(found.broken.change) == 1
    (kept,) = kept_cases(keep(found.broken, tmp_path).parent).values()
    assert kept.text == found.broken.text
    command = found.broken.command.replace("python", sys.executable, 1)
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "holds"), done.stderr


SIMPLEST = config.ClipSpec(
    size="384*256", infer_frames=12, num_clip=2, sample_steps=1, base_seed=0, enable_online_decode=False
)


def test_a_case_that_breaks_its_rule_exits_with_1(capsys) -> None:
    status = main([FuzzCase(rule="refusal", recipe=Recipe(name="x"), change={"num_clip": 2}).text])
    assert (status, capsys.readouterr().out.splitlines()[-1]) == (1, "broken: {'num_clip': 2} is not refused")


@pytest.mark.parametrize(("seconds", "tried"), [(0, "least"), (PATIENCE, "most")])
def test_a_budget_of_seconds_or_of_cases_ends_a_hunt(seconds: float, tried: str) -> None:
    from suites.fuzz.run_rule import run_rule

    cases = {"least": 1, "most": 2}
    found = run_rule("refusal", Profile(seconds=seconds, shrink_seconds=0, random=False, **cases))
    assert (found.broken, found.tried) == (None, cases[tried] * RULES["refusal"].share)


@pytest.mark.parametrize("text", ["no JSON", "{}", '{"rule": "luck"}', '{"rule": "seed", "clip": {"size": 4}}'])
def test_what_is_no_case_is_refused(text: str) -> None:
    with pytest.raises(BadData):
        read_case(text)


def test_a_case_is_kept_whole_by_whoever_keeps_it(tmp_path) -> None:
    recipe = changed(Recipe(name="x"), {"size": "640*640", "quirks.relative_dist": 7, "t5_cpu": True})
    case = FuzzCase(rule="card", recipe=recipe, change={"card_share": 0.9})
    with ThreadPoolExecutor(8) as threads:
        paths = set(threads.map(lambda _: keep(case, tmp_path), range(40)))
    assert [path.name for path in tmp_path.iterdir()] == [path.name for path in paths] == [f"{case.name}.json"]
    (read,) = kept_cases(tmp_path).values()
    assert (read.recipe.hash, read.change) == (recipe.hash, case.change)
    assert json.loads(case.text)["clip"] == {"size": "640*640", "quirks": {"relative_dist": 7}}


def test_it_runs_over_workers() -> None:
    """And says at the end what was tried."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "suites/fuzz",
        "-n",
        "2",
        "-k",
        "test_rule and refusal",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "refusal: " in done.stdout.split(" fuzz ")[-1]


def test_floors_are_baselines_less_what_they_let_through() -> None:
    eight, sixteen = floors(Deployment(fp8=True)), floors(Deployment(offload_blocks=True))
    assert eight["psnr_db"].value < sixteen["psnr_db"].value
    psnr = sixteen["psnr_db"]
    assert list(too_bad({"psnr_db": psnr.value - 0.9 * psnr.abs, "ssim": 0.0}, sixteen)) == []
    assert list(too_bad({"psnr_db": 100.0}, sixteen)) == []
    (line,) = too_bad({"psnr_db": psnr.value - 1.1 * psnr.abs}, sixteen)
    assert line.endswith(f"{psnr.abs:g} off {psnr.value:.4g} allowed")


@pytest.mark.parametrize("bits", [{}, {"fp8": True}, {"int8": True}, {"fp8_kv_cache": True}])
def test_videos_of_any_bits_have_floors(bits: dict[str, bool]) -> None:
    assert {"latent_cosine", "lip_sync_strength", "sharpness_kept_ratio"} < floors(Deployment(**bits)).keys()
