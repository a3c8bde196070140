"""What the page says of one run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liveavatar_core.errors import GIB
from liveavatar_core.strict import plain
from suites.harness.cases.tiers import Expectation
from suites.harness.pytest_plugin.session import Result
from suites.harness.records.history import HistoryEntry
from suites.harness.records.record import RunRecord, run_name
from suites.harness.report.answers import speed_text
from suites.harness.report.figures import fitting, name_of, place_of, size_text
from suites.harness.report.html_markup import Markup, tag
from suites.harness.report.html_media import video_figure
from suites.harness.report.html_memory import memory_charts
from suites.harness.report.html_quality import quality_table
from suites.harness.report.html_seconds import PREDICTED, one_number, strip_plot
from suites.harness.report.html_tables import agreement, changes, environment, pairs, phase_table
from suites.harness.report.html_time import nccl_facts, time_tables
from suites.harness.report.html_trends import trends
from suites.harness.verdicts.baselines import CaseBaseline

MEASURING = ("physical", "partitioned")
"""Modes whose numbers a simulation predicts; a miniature is another, smaller model."""
MODES = {
    "physical": "the tier's own cards",
    "partitioned": "emulated: a larger card, capped to the size of the tier's",
    "simulated": "no card: the full-size model executed on fake tensors",
    "miniature": "no card: a small model, really run, its limit scaled with it; the video is of the tiny avatar",
}


@dataclass(frozen=True, kw_only=True)
class KnownRemedy:
    """A case of a tier that fits, without a run of it."""

    case: str
    """The case's name."""
    because: str
    """The arithmetic behind it."""
    declared: dict[str, Any]
    """The declared inputs, as records have them."""
    baseline: CaseBaseline | None
    """Reviewed numbers of an earlier run on such a machine."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that belongs to a run without being in its record."""

    expected: Expectation | None
    """The ending that its tier says; None: the tier is not known here."""
    baseline: CaseBaseline | None
    """The reviewed numbers."""
    others: Sequence[Result]
    """Every run of the session."""
    known: Sequence[KnownRemedy]
    """The remedies that are said to fit on the tier's cards and took no part in the session."""
    history: Sequence[HistoryEntry]
    """Runs of this series, oldest first, this one last."""
    folder: Path
    """The folder in which the run left its files."""
    full_size: Mapping[str, dict[str, Any]]
    """What the tier's cases declare at full size, by case: a miniature's own settings change no layout."""


def folder_of(report_dir: Path, record: RunRecord) -> Path:
    """The folder of a run's video and logs."""
    return report_dir / "runs" / run_name(record.tier, record.case, record.hardware)


def run_article(result: Result, context: Context, key: str) -> Markup:
    """Everything about one run. `key`: unique in the page."""
    record = result.record
    charts = [
        memory_charts(record, key),
        strip_plot(record, context.baseline, f"{key}-seconds"),
        *trends(context.history, key),
    ]
    return tag(
        "article",
        tag("h3", record.case, " ", tag("small", place_of(record)), id=key),
        tag("p", _ending(record), class_=f"ending {record.outcome}"),
        tag("p", MODES[record.hardware], class_="quiet"),
        tag("p", f"Why, at full size: {context.expected.because}.") if context.expected else None,
        *_decisions(result),
        _remedies(record, context),
        one_number(record, context.baseline),
        tag("div", *charts, class_="charts"),
        _agreement(record, context.others),
        video_figure(context.folder / "video.mp4"),
        quality_table(record, context.baseline, unfolded=result.judgement.failing),
        time_tables(record),
        nccl_facts(record),
        tag("details", tag("summary", "Every reading of memory"), phase_table(record)),
        _observed(record),
        tag("details", tag("summary", "Environment"), environment(record)),
        class_="run",
    )


def _observed(record: RunRecord) -> Markup | None:
    """What ranks were seen to do, and which were executed for others."""
    values: list[tuple[str, object]] = [
        *((f"rank {each.rank}", plain(each)) for each in record.observed),
        *((f"executed rank {each.rank}", plain(each)) for each in record.simulated_roles),
        *plain(record.card_conditions).items(),
    ]
    shown = [(name, value) for name, value in values if value not in (None, [])]
    return tag("details", tag("summary", "Settings that were seen to act"), pairs(shown)) if shown else None


def _ending(record: RunRecord) -> str:
    """One sentence on how it ended."""
    short = record.out_of_memory
    if short is not None:
        held = ", ".join(f"{name_of(name)} {size_text(record, size)}" for name, size in _largest(short.holders))
        return (
            f"Out of memory on rank {short.rank} in {short.phase}: {name_of(short.category)} asked for"
            f" {size_text(record, short.requested)}; {size_text(record, short.free)} were free of"
            f" {size_text(record, short.capacity)}{_pieces(record)}. Held: {held or 'nothing'}."
        )
    if record.failure is not None:
        return f"{name_of(record.outcome).capitalize()}: {record.failure.message}"
    peak = record.peak_bytes()
    room = f", {size_text(record, record.limit_bytes - peak)} to spare" if record.limit_bytes and peak else ""
    again = f" The allocator gave cached segments back {record.retries} times to make room." if record.retries else ""
    voice = record.longest_voice
    length = "" if voice is None or voice.is_any else f" Longest voice: {voice}."
    return f"{fitting(record).capitalize()}: at most {size_text(record, peak)} a card{room}.{again}{length}"


def _pieces(record: RunRecord) -> str:
    """Where it was fragmentation: what segments took, and whether a setting would help."""
    short = record.out_of_memory
    if short is None or short.reserved is None:
        return ""
    better = [role.expandable_segments for role in record.simulated_roles if role.expandable_segments]
    helps = f"; with expandable_segments it {better[0]}" if better else ""
    return f", but in pieces: segments took {size_text(record, short.reserved)}{helps}"


def _largest(holders: Mapping[str, int]) -> list[tuple[str, int]]:
    """The categories that matter: up to three, none below a hundredth of all."""
    most = sorted(holders.items(), key=lambda item: -item[1])[:3]
    return [(name, size) for name, size in most if size >= sum(holders.values()) / 100]


def _decisions(result: Result) -> list[Markup]:
    found = [notice(f"{each.verdict}: {each.what}\nnext: {each.next_step}") for each in result.judgement.findings]
    if result.record.failure and result.record.failure.detail:
        output = tag("pre", result.record.failure.detail)
        found.append(tag("details", tag("summary", "The end of the rank's output"), output))
    return found


def notice(text: str) -> Markup:
    """Something that needs a decision: what, and on a line of its own the next step."""
    what, _, step = text.partition("\n")
    return tag("p", what, tag("br"), step, class_="next")


def _remedies(record: RunRecord, context: Context) -> Markup | None:
    """The layouts that ran on these cards and fit, those that are known to; and how to look for more."""
    if record.outcome != "oom":
        return None
    fitting = [
        each.record
        for each in context.others
        if (each.record.tier, each.record.hardware, each.record.outcome) == (record.tier, record.hardware, "pass")
    ]
    declared = _layout(record, context)
    items = [
        tag("li", tag("b", each.case), f": {_remedy(each, changes(declared, _layout(each, context)))}")
        for each in fitting
    ]
    simplest_first = sorted(context.known, key=lambda each: len(changes(declared, each.declared)))
    items += [
        tag("li", tag("b", each.case), f": {_known(record, each, changes(declared, each.declared))}")
        for each in simplest_first
    ]
    cards = shlex.quote(f"{record.machine.imitated_cards or record.machine.cards}x{_card(record)}")
    search = f"python -m liveavatar_core fit --cards {cards}"
    return tag(
        "div",
        tag("h4", "What fits on these cards"),
        tag("ul", *items) if items else None,
        _command("Run those that did not run here: ", f"pytest -m {record.tier} --hardware={record.hardware}")
        if context.known
        else None,
        _command("Search for more: " if items else "No layout that fits is known. Search for one: ", search),
        class_="remedies",
    )


def _layout(record: RunRecord, context: Context) -> dict[str, Any]:
    """What the case of a run declares at full size."""
    own = record.recipe.declared
    return context.full_size.get(record.case, own) if record.hardware == "miniature" else own


def _card(record: RunRecord) -> str:
    return record.machine.imitated_card or record.machine.card


def _command(words: str, command: str) -> Markup:
    return tag("p", words, tag("code", command))


def _remedy(fitting: RunRecord, changed: Sequence[str]) -> str:
    """A remedy that ran in this session."""
    size = f"{size_text(fitting, fitting.peak_bytes())} a card"
    return f"{size}{speed_text(fitting)}; {', '.join(changed) or 'as is'}"


def _known(failing: RunRecord, known: KnownRemedy, changed: Sequence[str]) -> str:
    """A remedy from its baseline; without one, the arithmetic alone."""
    reviewed = known.baseline.metrics if known.baseline else {}
    peak, predicted = reviewed.get("peak_vram_gib"), reviewed.get(PREDICTED)
    size = size_text(failing, round(peak.value * GIB)) + " a card (reviewed baseline)" if peak else "not run here"
    seconds = f", {predicted.value:.1f} s a clip predicted" if predicted else ""
    return f"{size}{seconds}. At full size: {known.because}. Settings: {', '.join(changed) or 'as is'}"


def _agreement(record: RunRecord, others: Sequence[Result]) -> Markup | None:
    """Under a simulation: each measurement of the same inputs, of however many clips and with whichever weights."""
    if record.hardware != "simulated":
        return None
    measured = [
        each.record
        for each in others
        if each.record.hardware in MEASURING
        and (each.record.tier, _predicted_alike(each.record)) == (record.tier, _predicted_alike(record))
    ]
    tables = [agreement(record, each) for each in measured]
    note = None if tables else tag("p", "Not measured: no card took part in this session.", class_="quiet")
    return tag("div", tag("h4", "Predicted against measured"), *tables, note)


def _predicted_alike(record: RunRecord) -> dict[str, Any] | str:
    """What is declared, but for what no prediction of bytes or of a steady clip depends on."""
    declared = {name: value for name, value in record.recipe.declared.items() if name != "weights"}
    clip = declared.get("clip")
    if not isinstance(clip, dict):
        return record.recipe.hash
    return declared | {"clip": {name: value for name, value in clip.items() if name != "num_clip"}}
