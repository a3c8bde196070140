"""What can be asked for has the types that its fields declare. Free of torch."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, get_args, get_type_hints

from liveavatar_core.errors import InvalidRecipe


def check_types(declared: Any) -> None:
    """Raise InvalidRecipe for a field whose value is of another type, or none of its choices: it would fail later."""
    for name, kind in _hints_of(declared.__class__).items():
        value, choices = getattr(declared, name), get_args(kind)
        if choices:
            fits, allowed = value in choices, "one of " + ", ".join(choices)
        else:
            fits, allowed = type(value) in ((int, float) if kind is float else (kind,)), f"of type {kind.__name__}"
        if not fits:
            raise InvalidRecipe(f"{name} {value!r} is not {allowed}", f"give {name} another value")


@cache
def _hints_of(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)
