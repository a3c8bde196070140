"""How good a run's video is, in a few lines of the terminal."""

from __future__ import annotations

import textwrap

from suites.harness.records.record import RunRecord
from suites.harness.verdicts.verdict import printable


def quality_lines(record: RunRecord, width: int) -> list[str]:
    """Name and value of each metric that is not 0; none where nobody looked. Why one is missing is in the record."""
    if not record.quality:
        return []
    title = f"quality of {record.tier} {record.case} {record.hardware}: "
    shown = [f"{name} {value:.4g}" for name, value in record.quality.items() if round(value, 4)]
    text = printable(title + (", ".join(shown) or "all 0"))
    return textwrap.wrap(text, width=max(width, 60), subsequent_indent="  ", break_on_hyphens=False)
