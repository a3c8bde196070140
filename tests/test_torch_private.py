"""What torch does not promise stands in one module, which says at once when a torch lacks some of it."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor._sharding_prop import ShardingPropagator

from liveavatar_core import torch_names
from liveavatar_core.errors import LiveAvatarError
from liveavatar_core.simulation.fake_tensors import QuickFakeMode
from liveavatar_core.simulation.memory_tracker import MemoryTracker

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "liveavatar_core/torch_private.py"
OF_OTHERS = {
    "_ArgumentGroup": "argparse",
    "_exit": "os",
    "_fields": "NamedTuple",
    "_monkeypatch": "pytest",
    "_replace": "NamedTuple",
    "_tw": "pytest",
}
"""Private names that are not torch's, and whose they are."""


def sources() -> list[Path]:
    folders = ("liveavatar_core", "suites", "tiny_avatar", "ci", "benchmarks", "tests")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(tree: ast.Module) -> set[str]:
    """Private names that a module gives to something itself."""
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    stored = [node for node in ast.walk(tree) if isinstance(getattr(node, "ctx", None), ast.Store)]
    attributes = [node for node in stored if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    defined |= {node.attr for node in attributes if node.value.id in ("self", "group")}
    return defined | {node.id for node in stored if isinstance(node, ast.Name)}


def foreign_names(tree: ast.Module, own: set[str]) -> set[str]:
    """Private names that are read of something, or imported, and are nobody's in the project."""
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    paths = [alias.name for node in imports for alias in node.names]
    paths += [node.module or "" for node in imports if isinstance(node, ast.ImportFrom)]
    imported = {part for path in paths for part in path.split(".")}
    return {name for name in read | imported if is_private(name)} - own - OF_OTHERS.keys()


def test_nothing_else_uses_a_private_name_of_torch() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources()}
    own = set().union(*map(own_names, trees.values()))
    others = [path for path in trees if path not in (MODULE, Path(__file__))]
    found = {str(path.relative_to(ROOT)): names for path in others if (names := foreign_names(trees[path], own))}
    assert not found


def test_everything_that_it_uses_is_looked_for() -> None:
    tree = ast.parse(MODULE.read_text(encoding="utf-8"))
    looked_for = {part for name in (*torch_names.RUN_NAMES, *torch_names.SIMULATION_NAMES) for part in name.split(".")}
    assert foreign_names(tree, own_names(tree)) <= looked_for


def test_what_is_missing_is_named_with_the_version() -> None:
    with pytest.raises(torch_names.UnsupportedTorch) as caught:
        torch_names.check_names(("torch._scaled_mm", "torch._no_such", "torch._nowhere.Thing._part"))
    assert isinstance(caught.value, LiveAvatarError)
    what, next_step = str(caught.value).splitlines()
    assert what == f"torch {torch.__version__} has no torch._no_such, torch._nowhere.Thing._part"
    assert next_step.startswith("next: ")
    assert torch_names.TESTED_VERSIONS in next_step


@pytest.mark.parametrize(
    ("owner", "name", "imported"),
    [
        ("torch", "_scaled_mm", "torch_private"),
        ("torch.nn.Module", "_call_impl", "simulation.memory_tracker"),
    ],
)
def test_a_torch_without_a_name_is_refused_before_anything_runs(owner: str, name: str, imported: str) -> None:
    script = f"import torch\ndel {owner}.{name}\nimport liveavatar_core.{imported}"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert f"UnsupportedTorch: torch {torch.__version__} has no {owner}.{name}\n" in ended.stderr


def test_attributes_that_only_objects_have_are_found_and_missed() -> None:
    """They are not on the class: methods set them."""
    group = "torch.distributed.fsdp._fully_shard._fsdp_param_group.FSDPParamGroup"
    torch_names.check_names((f"{group}._sharded_state",))
    with pytest.raises(torch_names.UnsupportedTorch):
        torch_names.check_names((f"{group}._sharded_estate",))


def test_the_versions_that_it_names_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"torch{torch_names.TESTED_VERSIONS}" in project["dependencies"]


def test_what_a_tracker_replaces_is_put_back() -> None:
    lock, resize = ShardingPropagator._fake_mode_lock, torch.UntypedStorage.resize_
    ShardingPropagator._fake_mode_lock = mine = Counted()  # type: ignore[assignment]
    try:
        with MemoryTracker(), ShardingPropagator._fake_mode_lock:
            assert mine.inside == 1, "what was there before is still entered"
        assert ShardingPropagator._fake_mode_lock is mine  # type: ignore[comparison-overlap]
        assert (torch.UntypedStorage.resize_, gc.isenabled(), gc.get_freeze_count()) == (resize, True, 0)
    finally:
        ShardingPropagator._fake_mode_lock = lock


class Counted:
    """A lock that knows how often it was entered."""

    inside = 0

    def __enter__(self) -> None:
        self.inside += 1

    def __exit__(self, *exc: object) -> None:
        self.inside -= 1


def test_a_nested_tracker_leaves_the_outer_one_as_it_was() -> None:
    with MemoryTracker() as outer:
        with MemoryTracker() as inner:
            both = torch.empty(1024)
            with ShardingPropagator._fake_mode_lock:
                unseen = torch.empty(1024)
        assert not gc.isenabled()
        with ShardingPropagator._fake_mode_lock:
            unseen_as_well = torch.empty(1024)
        alone = torch.empty(256)
        assert inner.peaks["load"].allocated == 4096
        assert outer.allocated["card"] == 4096 + 1024
        del both, unseen, unseen_as_well, alone


def test_a_nested_tracker_of_fake_tensors_takes_nothing_from_the_outer_one() -> None:
    with QuickFakeMode(), MemoryTracker() as outer:
        with MemoryTracker() as inner:
            held = torch.empty(1024)
        assert (inner.allocated["card"], outer.allocated["card"]) == (4096, 4096)
        del held
        assert outer.allocated["card"] == 0


def test_compat_runs_on_both_ends_of_the_versions_that_are_named() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    tested = next(line for line in makefile.splitlines() if line.startswith("COMPAT_TORCH ?="))
    versions = [tuple(map(int, version.split("."))) for version in tested.partition("=")[2].split()]
    least, below = (tuple(map(int, bound.lstrip("<>=").split("."))) for bound in torch_names.TESTED_VERSIONS.split(","))
    assert min(versions)[: len(least)] == least
    newest = max(versions)
    assert (newest[0], newest[1] + 1) == below
