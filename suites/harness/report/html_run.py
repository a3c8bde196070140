"""What the page says of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suites.harness.baseline import CaseBaseline
from suites.harness.record import RunRecord, run_name
from suites.harness.report.html_markup import Markup, tag
from suites.harness.report.html_media import video_figure
from suites.harness.report.html_memory import memory_charts
from suites.harness.report.html_seconds import strip_plot, trend
from suites.harness.report.html_tables import agreement, changes, environment, pairs, phase_table
from suites.harness.report.html_units import name_of, size_text
from suites.harness.session import Result
from suites.harness.tiers import Expectation

MEASURING = ("physical", "partitioned")
"""Modes whose numbers a simulation predicts; a miniature is another, smaller model."""
MODES = {
    "physical": "the tier's own cards",
    "partitioned": "emulated: a larger card, capped to the size of the tier's",
    "simulated": "no card: the full-size model executed on fake tensors",
    "miniature": "no card: a small model, really run, its limit scaled with it; random weights show no face",
}


@dataclass(frozen=True, kw_only=True)
class Context:
    """What belongs to a run without being in its record."""

    expected: Expectation | None
    """What its tier says; None: the tier is not known here."""
    baseline: CaseBaseline | None
    """The reviewed numbers."""
    others: Sequence[Result]
    """Every run of the session."""
    history: Sequence[RunRecord]
    """Earlier runs of this case in this mode, oldest first."""
    folder: Path
    """Where the run left its files."""


def folder_of(report_dir: Path, record: RunRecord) -> Path:
    """Where a run's video and logs lie."""
    return report_dir / "runs" / run_name(record.tier, record.case, record.hardware)


def run_article(result: Result, context: Context, key: str) -> Markup:
    """Everything about one run. `key`: unique in the page."""
    record = result.record
    charts = [
        memory_charts(record, key),
        strip_plot(record, context.baseline, f"{key}-seconds"),
        *_trends(context.history, key),
    ]
    return tag(
        "article",
        tag("h3", record.case, " ", tag("small", record.hardware), id=key),
        tag("p", _ending(record), class_=f"ending {record.outcome}"),
        tag("p", MODES[record.hardware], class_="quiet"),
        tag("p", f"Why, at full size: {context.expected.because}.") if context.expected else None,
        *_decisions(result),
        _remedies(record, context.others),
        tag("div", *charts, class_="charts"),
        _agreement(record, context.others),
        video_figure(context.folder / "video.mp4"),
        _quality(record),
        tag("details", tag("summary", "Every reading of memory"), phase_table(record)),
        tag("details", tag("summary", "Proof that settings acted"), pairs(record.knobs.items()))
        if record.knobs
        else None,
        tag("details", tag("summary", "Environment"), environment(record)),
        class_="run",
    )


def _ending(record: RunRecord) -> str:
    """One sentence on how it ended."""
    short = record.out_of_memory
    if short is not None:
        held = ", ".join(f"{name_of(name)} {size_text(record, size)}" for name, size in _largest(short.holders))
        return (
            f"Out of memory on rank {short.rank} in {short.phase}: {name_of(short.category)} asked for"
            f" {size_text(record, short.requested)}; {size_text(record, short.free)} were free of"
            f" {size_text(record, short.capacity)}. Held: {held or 'nothing'}."
        )
    if record.failure is not None:
        return f"{name_of(record.outcome).capitalize()}: {record.failure.message}"
    peak = record.peak_bytes()
    room = f", {size_text(record, record.limit_bytes - peak)} to spare" if record.limit_bytes and peak else ""
    return f"Fits: at most {size_text(record, peak)} a card{room}."


def _largest(holders: dict[str, int]) -> list[tuple[str, int]]:
    """The categories that matter: up to three, none below a hundredth of all."""
    most = sorted(holders.items(), key=lambda item: -item[1])[:3]
    return [(name, size) for name, size in most if size >= sum(holders.values()) / 100]


def _decisions(result: Result) -> list[Markup]:
    found = [
        tag(
            "p",
            tag("b", f"{each.verdict}: "),
            each.what,
            tag("br"),
            tag("span", f"next: {each.next_step}"),
            class_="next",
        )
        for each in result.judgement.findings
    ]
    if result.record.failure and result.record.failure.detail:
        output = tag("pre", result.record.failure.detail)
        found.append(tag("details", tag("summary", "The end of the rank's output"), output))
    return found


def _remedies(record: RunRecord, others: Sequence[Result]) -> Markup | None:
    """What was run on these cards and fits; else how to look for it."""
    if record.outcome != "oom":
        return None
    fitting = [
        each.record
        for each in others
        if (each.record.tier, each.record.hardware, each.record.outcome) == (record.tier, record.hardware, "pass")
    ]
    items = [tag("li", tag("b", each.case), f": {_remedy(record, each)}") for each in fitting]
    search = f'python -m liveavatar_core fit --cards {record.machine.cards}x"{record.machine.card}"'
    step = tag(
        "p", "Search for more: " if items else "No layout that fits ran with it. Search for one: ", tag("code", search)
    )
    return tag(
        "div", tag("h4", "What fits on these cards"), tag("ul", *items) if items else None, step, class_="remedies"
    )


def _remedy(failing: RunRecord, fitting: RunRecord) -> str:
    predicted = fitting.timing.predicted_seconds_per_clip
    seconds = f", {predicted:.1f} s a clip predicted" if predicted is not None else ""
    return (
        f"{size_text(fitting, fitting.peak_bytes())} a card{seconds}; {', '.join(changes(failing, fitting)) or 'as is'}"
    )


def _agreement(record: RunRecord, others: Sequence[Result]) -> Markup | None:
    """Under a simulation: each measurement of the same case and recipe."""
    if record.hardware != "simulated":
        return None
    measured = [
        each.record
        for each in others
        if each.record.hardware in MEASURING
        and (each.record.tier, each.record.recipe.hash) == (record.tier, record.recipe.hash)
    ]
    tables = [agreement(record, each) for each in measured]
    note = None if tables else tag("p", "Not measured: no card took part in this session.", class_="quiet")
    return tag("div", tag("h4", "Predicted against measured"), *tables, note)


def _quality(record: RunRecord) -> Markup | None:
    if not record.quality:
        return None
    return tag(
        "div", tag("h4", "Quality"), pairs((name.replace("_", " "), value) for name, value in record.quality.items())
    )


def _trends(history: Sequence[RunRecord], key: str) -> list[Markup]:
    """Peak and seconds over earlier runs, once there are two."""
    peaks = [(each.date.isoformat(), (each.peak_bytes() or 0) / 2**30) for each in history if each.outcome == "pass"]
    seconds = [(each.date.isoformat(), _seconds(each)) for each in history]
    lines = {
        "Peak a card, GiB, over time": peaks,
        "Seconds a clip, over time": [(d, s) for d, s in seconds if s is not None],
    }
    return [
        trend(name, values, f"{key}-trend-{at}") for at, (name, values) in enumerate(lines.items()) if len(values) > 1
    ]


def _seconds(record: RunRecord) -> float | None:
    clips = sorted(record.timing.clip_seconds)
    return clips[len(clips) // 2] if clips else record.timing.predicted_seconds_per_clip
