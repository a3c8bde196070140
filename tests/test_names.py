"""A name means one thing: no two public classes of the project are called alike."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("liveavatar_core", "suites", "tiny_avatar", "ci")


def public_classes(tree: ast.Module) -> Iterator[str]:
    """Classes and named types at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and is_type(node.value):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def is_type(value: ast.expr) -> bool:
    """Whether a value says what something is: `Callable[...]`, `Literal[...]`, `A | B`."""
    if isinstance(value, ast.BinOp):
        return isinstance(value.op, ast.BitOr)
    if not isinstance(value, ast.Subscript):
        return False
    return isinstance(value.value, ast.Name) and value.value.id[:1].isupper()


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        for name in public_classes(ast.parse(path.read_text(encoding="utf-8"))):
            if not name.startswith("_") and name[:1].isupper() and not name.isupper():
                places[name].append(str(path.relative_to(ROOT)))
    assert len(places) > 200, "classes were looked for in the wrong place"
    assert not {name: found for name, found in places.items() if len(found) > 1}
