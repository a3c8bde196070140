"""HTML that cannot be injected into: every text is escaped unless it was made here."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = frozenset({"meta", "img", "br"})
"""Elements without an end."""


class Markup(str):
    """Text that is HTML already; only this module makes it of anything that came from outside."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: object) -> Markup:
    """An element. Children are escaped unless they are Markup; None is left out, children and attributes alike.

    Underscores in names of attributes become hyphens, and one at the end is dropped (`class_`).
    """
    pairs = (
        f' {key.rstrip("_").replace("_", "-")}="{_text(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    start = f"<{name}{''.join(pairs)}>"
    return Markup(start if name in VOID else f"{start}{joined(children)}</{name}>")


def joined(children: Iterable[str | None]) -> Markup:
    """One after the other, escaped unless Markup."""
    return Markup("".join(child if isinstance(child, Markup) else _text(child) for child in children if child))


def _text(text: str) -> str:
    """Escaped; what has no picture (control characters, changes of direction) is made visible."""
    shown = "".join(char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text)
    return html.escape(shown, quote=True)


def _number(value: object) -> str:
    """Coordinates with one decimal are exact enough, and short."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
