"""Dataclasses from TOML or JSON and back, strictly: an unknown or absent key or a wrong type is an error."""

from __future__ import annotations

import math
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from liveavatar_core.errors import BadData

T = TypeVar("T")

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        BadData: it cannot be read, is not UTF-8 or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: {error}", "correct the file, or restore it from version control") from error
    return parse_toml(text, str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML document; raises BadData, which names `where`."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadData(f"{where}: {error}", "correct the file, or restore it from version control") from error


def build(kind: type[T], data: Any, where: str) -> T:
    """`data`, as TOML or JSON gives it, as a `kind` (a dataclass).

    Args:
        kind: a dataclass whose fields are str, int, float, bool, date, Literal, X | None, tuple[X, ...],
            dict[str, X] (or Mapping), Any or such dataclasses.
        data: a table.
        where: file and table, for the message.

    Raises:
        BadData: a key is unknown or absent, or a value has another type or is refused by `kind` itself.
    """
    if not isinstance(data, dict):
        raise _wrong(where, "a table", data)
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise BadData(f"{where}: unknown key {key!r}", f"known keys: {', '.join(known)}")
    for name, item in known.items():
        if name not in data and item.default is MISSING and item.default_factory is MISSING:
            raise BadData(f"{where}: key {name!r} is missing", f"give {name} ({hints[name]})")
    values = {key: convert(hints[key], value, f"{where}.{key}") for key, value in data.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise BadData(f"{where}: {error}", "correct this entry") from error


def convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as a `kind`; see `build` for what kinds there are."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else convert(_not_none(arguments), value, where)
    if origin is Literal:
        return _choice(arguments, value, where)
    if origin is tuple:
        items = _expect(list, value, where, "a list")
        return tuple(convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(items))
    if origin in (dict, Mapping):
        table = _expect(dict, value, where, "a table")
        return {key: convert(arguments[1], item, f"{where}.{key}") for key, item in table.items()}
    return build(cast(type, kind), value, where) if is_dataclass(kind) else _scalar(kind, value, where)


def plain(value: Any) -> Any:
    """`value` (dataclasses, mappings, sequences, dates, numbers) in the types of JSON, as `build` reads them back.

    Numbers that are not finite become text.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value.isoformat() if isinstance(value, date) else value


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if kind is float and type(value) is int:
        return float(value)
    if kind is date and isinstance(value, str):
        return _iso_date(value, where)
    if type(value) is not kind:
        raise _wrong(where, f"of type {kind.__name__}", value)
    return value


def _iso_date(text: str, where: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise _wrong(where, "a date like 2026-11-20", text) from error


def _not_none(arguments: tuple[Any, ...]) -> Any:
    return next(kind for kind in arguments if kind is not types.NoneType)


def _choice(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in choices:
        raise _wrong(where, "one of " + ", ".join(map(str, choices)), value)
    return value


def _expect(kind: type[T], value: Any, where: str, what: str) -> T:
    if not isinstance(value, kind):
        raise _wrong(where, what, value)
    return value


def _wrong(where: str, allowed: str, value: Any) -> BadData:
    return BadData(f"{where}: {value!r} is not {allowed}", "correct this entry")
