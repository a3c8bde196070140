"""Tables in documents that a command writes: between two marks, `<!-- NAME -->` and `<!-- end of NAME -->`."""

from __future__ import annotations

from liveavatar_core.errors import BadInput


def replaced(document: str, name: str, table: str) -> str:
    """The document with `table` between its marks. Raises BadInput without marks."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise BadInput(f"the document has no {begin} ... {end}", "put both lines where the table belongs")
    return f"{before}{begin}\n{table}\n{end}{after}"


def lines_between(document: str, name: str) -> list[str]:
    """The lines of the table in a document; none without marks."""
    return document.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0].strip().splitlines()
