"""The suite as an installed package: what is in the wheel, and what a lab does with it that has no clone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from waiting import PATIENCE

from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

ROOT = Path(__file__).parents[1]

INI = """
[pytest]
tiers = lab.toml
hardware = miniature
history = history
"""
TIER = """
[lab1]
title = "one card of ours"
cards = 1
card = "RTX 4090"

[lab1.cases.quick]
recipe = "single"
clip = { infer_frames = 12, sample_steps = 2, num_clip = 1 }
miniature_capacity_mib = 64
expect = { outcome = "pass", because = "it is tiny" }
"""
TEST = """
import pytest

pytestmark = pytest.mark.lab1


def test_ours(tier):
    tier.check("quick")
"""
FOREIGN = """
import pytest


@pytest.mark.nightly
def test_of_another_project():
    pass
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of programs of an environment that has the wheel, and of this one nothing but what it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = sysconfig.get_paths("venv", {"base": str(folder), "platbase": str(folder)})["purelib"]
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    pip("--python", folder / "bin/python", "install", "--no-deps", wheel)
    return folder / "bin"


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def lab(tmp_path, installed):
    """A lab's own folder: a tier, a test and its settings. Runs pytest there."""
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "lab.toml").write_text(TIER)
    (tmp_path / "test_ours.py").write_text(TEST)

    def run(*arguments, folder=tmp_path):
        command = [installed / "python", "-m", "pytest", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE)

    return run


def test_the_wheel_holds_the_packages_and_what_they_read(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"liveavatar_core", "suites", "tiny_avatar"}
    assert not [name for name in names if name.startswith("tiny_avatar/training/")]
    for path in ("assets/portrait.png", "assets/voice.wav", "assets/tiny_avatar/liveavatar.safetensors"):
        assert f"liveavatar_core/{path}" in names
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "baselines").rglob("*.toml")}
    assert {f"suites/{path}" for path in shipped} <= set(names)


def test_the_program_is_on_the_path(installed, tmp_path):
    done = subprocess.run([installed / "liveavatar", "fit", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "--cards" in done.stdout) == (0, True), done.stderr


def test_the_tiers_that_ship_are_found_without_a_clone(lab, tmp_path):
    found = lab("--pyargs", "suites.tiers", "--collect-only", "-q", "-m", "gpu1x80 or lab1")
    assert "test_gpu1x80.py::test_single_fits[miniature]" in found.stdout, found.stdout + found.stderr
    assert "test_added_case[miniature-lab1-quick]" in found.stdout or "lab1-quick" in found.stdout


def test_a_lab_measures_and_keeps_its_own_baselines(lab, tmp_path):
    first = lab("test_ours.py", "--baseline-update-new-only")
    assert first.returncode == 0, first.stdout + first.stderr
    kept = (tmp_path / "baselines/miniature/lab1.toml").read_text()
    assert 'commit = "v' in kept, "the version of the package, whatever repository the environment lies in"
    record = json.loads((tmp_path / "report/records/lab1.quick.miniature.json").read_text())
    assert record["outcome"] == "pass"
    second = lab("test_ours.py", "--require-baselines")
    assert second.returncode == 0, second.stdout + second.stderr
    assert len(list((tmp_path / "history").rglob("*.json"))) == 2, "as pytest.ini says"


def test_the_files_of_the_documents_are_a_lab(lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("documented")
    page = (ROOT / "docs/lab-machine.md").read_text()
    blocks = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    assert blocks.keys() == {"pytest.ini", "lab.toml", "test_lab.py"}
    for name, text in blocks.items():
        (folder / name).write_text(text.replace("/shared", str(folder)))
    found = lab("--collect-only", "-q", folder=folder)
    assert found.stdout.splitlines()[0] == "test_lab.py::test_fp8[auto]", found.stdout + found.stderr
    lost = lab("-q", folder=folder)
    assert lost.returncode == EXIT_CODES[Verdict.INFRASTRUCTURE], "the ini file requires cards, and there are none"


def test_another_project_in_the_same_environment_is_left_alone(lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = nightly: of another project\n")
    (folder / "test_theirs.py").write_text(FOREIGN)
    done = lab("-q", folder=folder)
    assert done.stdout.splitlines()[-1].startswith("1 passed"), done.stdout
    assert "conformance" not in done.stdout
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith((".", "__"))) == [
        "pytest.ini",
        "test_theirs.py",
    ]
