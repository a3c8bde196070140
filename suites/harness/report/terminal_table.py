"""A table of plain text."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence


def render_table(titles: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> list[str]:
    """The lines of a table of at most `width` columns; what has no room is folded, in the last column anywhere."""
    from rich import box  # imported here: only who has a table to show pays for it
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for title in titles[:-1]:
        table.add_column(title)
    table.add_column(titles[-1], overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    file = io.StringIO()
    Console(file=file, width=width, color_system=None, force_terminal=False).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]
