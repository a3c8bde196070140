"""Fields of a dataclass as options of a command: names, types, defaults and help have one home."""

from __future__ import annotations

import argparse
import ast
import inspect
import textwrap
from collections.abc import Collection
from dataclasses import Field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def add_fields(group: argparse._ArgumentGroup, of: type, *, without: Collection[str] = ()) -> None:
    """An option for each field of the dataclass `of`; its help is the docstring under the field.

    What is not given is absent from the namespace, so that a recipe can stand behind what is.
    """
    types, texts = get_type_hints(of), field_docstrings(of)
    for field in _shown(of, without):
        text = f"{texts[field.name]} (default: {field.default})".replace("%", "%%")
        group.add_argument(f"--{field.name}", default=argparse.SUPPRESS, help=text, **_reading(types[field.name]))


def read_fields(
    options: argparse.Namespace, of: type, *, without: Collection[str] = (), base: object = None
) -> dict[str, Any]:
    """The fields of `of` by name: as given, else as `base` (an `of`) has them, else their defaults."""
    shown = _shown(of, without)
    return {
        field.name: getattr(options, field.name, field.default if base is None else getattr(base, field.name))
        for field in shown
    }


def field_docstrings(of: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, in one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(of))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            texts[field.target.id] = " ".join(_string(text).split())
    return texts


def parse_bool(text: str) -> bool:
    """True or False, as Live Avatar's scripts write them."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def _shown(of: type, without: Collection[str]) -> list[Field[Any]]:
    return [field for field in fields(of) if field.name not in without]


def _reading(kind: Any) -> dict[str, Any]:
    """How argparse reads a value of that type."""
    if kind is bool:
        return {"type": parse_bool, "nargs": "?", "const": True, "metavar": "True|False"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    return {"type": kind, "metavar": {int: "N", float: "X"}.get(kind, "TEXT")}


def _string(statement: ast.stmt) -> str:
    """The text of a statement that is only a string, else nothing."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return str(statement.value.value)
    return ""
