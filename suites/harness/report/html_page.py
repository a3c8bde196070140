"""A page: one file that needs nothing else, and runs no script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from suites.harness.report.html_markup import Markup, tag

STYLE = Path(__file__).with_name("report.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
"""The rights of the page in a browser: to show what is in it. Nothing is fetched, nothing runs."""


def page(title: str, body: Sequence[Markup]) -> str:
    """The document of a body."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(STYLE.read_text(encoding="utf-8"))),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en')}\n"
