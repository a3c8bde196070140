"""The table at the end of a session, and below it what needs a decision. Plain text, 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from suites.harness.pytest_plugin.session import Result
from suites.harness.records.record import RunRecord
from suites.harness.report.figures import number_text, room_bytes, speed_of, unit_of
from suites.harness.report.terminal_quality import quality_lines
from suites.harness.report.terminal_table import render_table
from suites.harness.verdicts.verdict import Verdict, printable

NARROWEST = 60
"""Columns that the table takes at the least."""
WIDE = 100
"""Columns from which the table has room for frames a second and the real-time factor."""
SEPARATE = (Verdict.PASS, Verdict.NOT_COMPARED, Verdict.NEEDS_BASELINE)
"""Verdicts that need no decision, or one for many cases."""


def render(results: Sequence[Result], unused: Sequence[str], *, width: int) -> list[str]:
    """The lines of the table and of the decisions.

    Args:
        results: every run of the session, in any order.
        unused: two lines each: baseline entries and waivers that nothing uses.
        width: columns of the terminal.
    """
    ordered = sorted(results, key=lambda each: (each.record.tier, each.record.case, each.record.hardware))
    decisions = [line for result in ordered for line in _decision(result)] + _missing_baselines(ordered)
    decisions += [line for text in unused for line in text.split("\n")]
    quality = [line for result in ordered for line in quality_lines(result.record, width)]
    rows = _table(ordered, width) if width >= NARROWEST else _list(ordered, width)
    return [*rows, *(["", *quality] if quality else []), *(["", *decisions] if decisions else [])]


def _table(results: Sequence[Result], width: int) -> list[str]:
    titles = ["tier, hardware\n  case", "outcome\nphase", "peak\na card", "limit\nroom", "seconds\na clip"]
    fast = ["frames\na second", "real-time\nfactor"] if width >= WIDE else []
    rows = []
    for result in results:
        *cells, baseline = _row(result)
        rows.append((*cells, *(_speed(result.record) if fast else ()), baseline))
    return render_table([*titles, *fast, "baseline"], rows, width)


def _list(results: Sequence[Result], width: int) -> list[str]:
    """The table's rows below each other, where its columns have no room."""
    lines = []
    for result in results:
        name, outcome, peak, limit, seconds, baseline = (cell.split() for cell in _row(result))
        cells = {"": [*outcome], "peak": peak, "limit, room": limit, "seconds": seconds, "baseline": baseline}
        lines += textwrap.wrap(" ".join(name), width)
        for title, words in cells.items():
            text = " ".join([title, *words]).strip()
            lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ")
    return lines


def _row(result: Result) -> tuple[str, ...]:
    record = result.record
    baseline = "waived" if result.judgement.waived else str(result.judgement.verdict)
    emulated = "\n  emulated" if record.hardware == "partitioned" else ""
    name = f"{record.tier} {record.hardware}\n  {printable(record.case)}{emulated}"
    return (
        name,
        "\n".join((record.outcome, *_below(record))),
        peaks(record),
        _limit(record),
        _seconds(record),
        baseline,
    )


def _below(record: RunRecord) -> Iterator[str]:
    """Below the outcome: where memory ran out, or how it fits."""
    if record.out_of_memory:
        yield record.out_of_memory.phase
    elif record.retries:
        yield f"{record.retries} retries"
    voice = record.longest_voice
    if voice is not None and not voice.is_any:
        yield f"voice to {voice.seconds:.0f} s"


def peaks(record: RunRecord) -> str:
    """Peak of each rank, equal ones counted, largest first: `17.2 x4, 11.1`. In the unit of the limit."""
    unit, _ = unit_of(record)
    sizes = [record.peak_bytes(rank=rank) for rank in record.ranks]
    texts = sorted((f"{size / unit:.1f}" for size in sizes if size is not None), key=float, reverse=True)
    if not texts:
        return "no reading"
    groups = [(text, len(list(group))) for text, group in groupby(texts)]
    return ", ".join(text if count == 1 else f"{text} x{count}" for text, count in groups)


def _limit(record: RunRecord) -> str:
    """The limit; below it what was left of it at the peak, or what was lacking."""
    unit, name = unit_of(record)
    if record.limit_bytes is None:
        return "none"
    left = room_bytes(record)
    room = "" if left is None else f"\n{left / unit:+.2f}"
    return f"{record.limit_bytes / unit:.2f} {name}{room}"


def _seconds(record: RunRecord) -> str:
    speed = speed_of(record)
    return "-" if speed is None else f"{speed.seconds_per_clip:.2f}\n{speed.note}".rstrip()


def _speed(record: RunRecord) -> tuple[str, str]:
    """Frames a second, and seconds of work a second of video."""
    speed = speed_of(record)
    found = (speed.frames_per_second, speed.real_time_factor) if speed else (None, None)
    return number_text(found[0]), number_text(found[1])


def _missing_baselines(results: Sequence[Result]) -> list[str]:
    """Two lines for all that one update would settle."""
    groups: dict[str, list[str]] = {}
    for result in results:
        for finding in result.judgement.findings:
            if finding.verdict is Verdict.NEEDS_BASELINE:
                name = f"{result.record.case} {finding.metric or ''}".strip()
                groups.setdefault(finding.next_step, []).append(printable(name))
    return [
        line
        for step, names in groups.items()
        for line in (f"{Verdict.NEEDS_BASELINE}: {', '.join(names)}", f"next: {printable(step)}")
    ]


def _decision(result: Result) -> list[str]:
    lines = []
    for finding in result.judgement.findings:
        if finding.verdict not in SEPARATE:
            prefix = "waived, " if result.judgement.waived and finding.fails else ""
            lines += [
                f"{prefix}{finding.verdict}: {printable(finding.what)}",
                f"next: {printable(finding.next_step)}",
            ]
    if result.judgement.waived:
        lines.append(f"  waiver: {printable(result.judgement.waived)}")
    return lines
