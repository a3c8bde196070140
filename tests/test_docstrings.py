"""Docstrings of the core say something by themselves, as an editor shows them on hover."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CORE = Path(__file__).resolve().parents[1] / "liveavatar_core"
IN_THE_AIR = re.compile(r"(Of|As|That|Those|Its|Their|The same|And|See)\b|\w+\.$")
"""A first line that leans on what stands above it, or is a single word."""


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and first line of every string that stands by itself: of modules, classes, functions, fields."""
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.lineno, value.value.split("\n")[0]


def test_docstrings_do_not_begin_in_the_air() -> None:
    files = sorted(CORE.rglob("*.py"))
    found = [(path, *each) for path in files for each in docstrings(ast.parse(path.read_text(encoding="utf-8")))]
    assert len(found) > 1000, "docstrings were looked for in the wrong place"
    assert not [f"{path.relative_to(CORE)}:{line}: {text}" for path, line, text in found if IN_THE_AIR.match(text)]
