"""Files are data: none of them runs anything or writes outside its folder. Ranks talk over loopback alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from canned import passed
from launch_targets import Total

from liveavatar_core.errors import BadData
from suites.harness.cases.tiers import read_tiers
from suites.harness.processes.rank_group import Job, RankGroup
from suites.harness.verdicts.baselines import baseline_path
from suites.harness.verdicts.waivers import read_waivers

ROOT = Path(__file__).parents[2]
PIPES = {"suites/harness/processes/child_link.py"}
"""Unpickles what the parent sent over its own pipe; nothing from a file."""
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
UNPICKLES = {"load", "loads", "Unpickler"}
TIER = """
["{tier}"]
title = "t"
cards = 5
card = "RTX 4090"
["{tier}".cases."{case}"]
recipe = "published_sharded"
expect = {{ outcome = "pass", because = "b" }}
"""


def sources() -> list[Path]:
    return sorted(path for folder in ("liveavatar_core", "suites", "ci") for path in (ROOT / folder).rglob("*.py"))


def dangers(path: Path) -> list[str]:
    """Calls in a source file that could run what stands in a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        module, _, function = name.rpartition(".")
        weights_only = any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords)
        unpickles = module in ("pickle", "torch", "numpy", "np", "joblib", "dill", "marshal") and function in UNPICKLES
        if name in RUNS_CODE or (unpickles and not weights_only):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    return found


def test_nothing_unpickles_or_runs_what_stands_in_a_file():
    found = [danger for path in sources() if str(path.relative_to(ROOT)) not in PIPES for danger in dangers(path)]
    assert not found


def test_the_search_finds_what_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "bad.py"
    path.write_text("torch.load(f)\ntorch.load(f, weights_only=True)\npickle.loads(b)\neval(text)\n")
    assert [danger.rpartition(" ")[2] for danger in dangers(path)] == ["torch.load", "pickle.loads", "eval"]


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/b", "..", "a\\u0000b", "a\\nb"])
def test_a_tiers_file_cannot_name_a_place(tmp_path: Path, name: str):
    for tier, case in ((name, "fine"), ("fine", name)):
        path = tmp_path / "tiers.toml"
        path.write_text(TIER.format(tier=tier, case=case))
        with pytest.raises(BadData):
            read_tiers(path)


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside", "..", "a/../../b"])
def test_a_record_cannot_be_written_or_compared_outside(tmp_path: Path, name: str):
    record = passed(case=name, tier=name)
    assert record.write(tmp_path).parent == tmp_path / "records"
    assert baseline_path(tmp_path / "baselines", record).resolve().is_relative_to((tmp_path / "baselines").resolve())


def test_a_waiver_only_names_what_it_excuses(tmp_path: Path):
    path = tmp_path / "waivers.toml"
    path.write_text(
        '[[waiver]]\ncase = "../../x"\nmachine = "/etc"\nreason = "r"\nlink = "l"\n'
        'verdict = "regressed"\nsince = 2026-12-01\nexpires = 2026-12-31\n'
    )
    before = sorted(tmp_path.rglob("*"))
    read_waivers(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_ranks_listen_on_loopback_alone(tmp_path: Path):
    with RankGroup.start(Job(target="launch_targets:all_reduce", world_size=2), tmp_path) as group:
        group.command("clip", answer=Total)
        addresses = {address for pid in group.pids for address in listening(pid)}
    assert addresses, "gloo listens on something"
    assert addresses <= {"0100007F", "00000000000000000000000001000000"}


def listening(pid: int) -> list[str]:
    """Addresses, in the kernel's hexadecimal, on which a process accepts connections."""
    links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    inodes = {str(link).removeprefix("socket:[").removesuffix("]") for link in links if "socket:" in str(link)}
    rows = [
        row.split() for kind in ("tcp", "tcp6") for row in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
    ]
    return [row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]
