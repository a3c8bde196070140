"""What makes a tree changed: only what can change a measurement."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from suites.harness.records.working_tree import commit_of

FILES = ("liveavatar_core/config.py", "suites/harness/a.py", "docs/a.md", "tests/test_a.py", "pyproject.toml")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with a commit."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a\n")
    who = ("-c", "user.name=Lab", "-c", "user.email=lab@example.org", "-c", "commit.gpgsign=false")
    for arguments in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "a")):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("history/miniature/gpu5x24.json", False),
        ("lab.toml", False),
        ("ckpt/weights.safetensors", False),
        ("slurm-412.out", False),
        ("docs/a.md", False),
        ("tests/test_a.py", False),
        ("baselines/simulated-x/a.toml", False),
        ("suites/fuzz/cases/found.json", False),
        ("suites/notes.txt~", False),
        ("suites/harness/a.py", True),
        ("suites/harness/new.py", True),
        ("liveavatar_core/config.py", True),
        ("liveavatar_core/hardware/calibrations/new.toml", True),
        ("assets/portrait.png", True),
        ("pyproject.toml", True),
    ],
)
def test_only_what_can_change_a_measurement_counts(tree: Path, name: str, changed: bool):
    assert not commit_of(tree).endswith("+")
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text("b\n")
    for asked_from in (tree, tree / "suites"):
        assert commit_of(asked_from).endswith("+") is changed


def test_a_file_that_is_gone_counts(tree: Path):
    (tree / "suites/harness/a.py").unlink()
    assert commit_of(tree).endswith("+")


def test_outside_of_git_there_is_no_commit(tmp_path: Path):
    assert commit_of(tmp_path) is None


def test_a_commit_is_told_in_ten_digits(tree: Path):
    whole = subprocess.run(["git", "-C", str(tree), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert commit_of(tree) == whole.stdout[:10]
    (tree / "pyproject.toml").write_text("b\n")
    assert commit_of(tree) == f"{whole.stdout[:10]}+"


def test_a_renamed_file_counts_though_its_new_name_matters_to_nobody(tree: Path):
    (tree / "suites/harness/a.py").rename(tree / "suites/harness/a.md")
    assert commit_of(tree).endswith("+")
