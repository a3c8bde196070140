"""The page of a session (`--report-html`): one file that needs nothing else, and runs no script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from liveavatar_core.files import write_atomically
from suites.harness.cases.tiers import Tier
from suites.harness.pytest_plugin.options import Settings
from suites.harness.pytest_plugin.session import Result
from suites.harness.records.history import read_history, same_series
from suites.harness.records.record import HARDWARE_MODES, DeclaredRecipe, RunRecord
from suites.harness.report.html_markup import Markup, joined, tag
from suites.harness.report.html_run import Context, KnownRemedy, folder_of, notice, run_article
from suites.harness.report.html_tables import table
from suites.harness.report.html_units import fitting, name_of, size_text
from suites.harness.verdicts.baselines import CaseBaseline, baseline_path, read_baseline
from suites.harness.verdicts.stats import summarise
from suites.harness.verdicts.verdict import Verdict, worst

STYLE = Path(__file__).with_name("report.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
"""The rights of the page in a browser: to show what is in it. Nothing is fetched, nothing runs."""


def write_html(
    path: Path, results: Sequence[Result], tiers: Mapping[str, Tier], settings: Settings, notices: Iterable[str] = ()
) -> None:
    """Write the page of a session. Raises BadData where it cannot be written."""
    write_atomically(path, render_html(results, tiers, settings, notices))


def render_html(
    results: Sequence[Result], tiers: Mapping[str, Tier], settings: Settings, notices: Iterable[str] = ()
) -> str:
    """The page: verdict first, then a section for each tier. `notices`: what else needs a decision, two lines each."""
    ordered = sorted(results, key=lambda each: (each.record.tier, each.record.case, each.record.hardware))
    keys = {id(result): f"run-{number}" for number, result in enumerate(ordered)}
    history = read_history(settings.history) if settings.history else []
    sections = [
        _section(name, list(group), tiers, ordered, keys, history, settings)
        for name, group in groupby(ordered, key=lambda each: each.record.tier)
    ]
    body = [_header(ordered, keys, tiers, notices), tag("main", *sections)]
    return _page("Live Avatar: conformance", body)


def _page(title: str, body: Sequence[Markup]) -> str:
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


def _header(
    results: Sequence[Result], keys: Mapping[int, str], tiers: Mapping[str, Tier], notices: Iterable[str]
) -> Markup:
    rows = [_row(result, keys[id(result)]) for result in results]
    titles = ("Tier", "Case", "On", "Ends in", "Peak a card", "Limit", "Seconds a clip", "Verdict")
    return tag(
        "header",
        tag("p", "Live Avatar: conformance", class_="kicker"),
        _verdict(results),
        tag("ul", *_answers(results, tiers), class_="answers") if rows else None,
        *map(notice, notices),
        table(titles, rows, class_="runs") if rows else tag("p", "No run of a tier took part in this session."),
    )


def _verdict(results: Sequence[Result]) -> Markup:
    """The session's verdict in a sentence."""
    failing = [result for result in results if result.judgement.failing]
    if not results:
        return tag("h1", "Nothing ran", class_="none")
    if not failing:
        count = "The run" if len(results) == 1 else f"All {len(results)} runs"
        return tag("h1", f"{count} ended as expected", class_="good")
    grave = worst(result.judgement.verdict for result in failing)
    return tag("h1", f"{len(failing)} of {len(results)} runs need a decision: {grave}", class_="bad")


def _answers(results: Sequence[Result], tiers: Mapping[str, Tier]) -> Iterator[Markup]:
    """Does it run on these cards? A sentence for each tier, from its most real runs."""
    for name, group in groupby(results, key=lambda each: each.record.tier):
        records = [each.record for each in group]
        mode = min((each.hardware for each in records), key=HARDWARE_MODES.index)
        told = ", ".join(f"{each.case} {_ends(each)}" for each in records if each.hardware == mode)
        tier = tiers.get(name)
        cards = f"{tier.cards} × {tier.card}" if tier else name
        fits = [case.name for case in tier.cases if case.expect.outcome == "pass"] if tier else []
        others = [case for case in fits if case not in {each.case for each in records}]
        more = f". Other layouts fit: {', '.join(others)}" if others else ""
        yield tag("li", tag("b", cards), f" ({mode}): {told}{more}")


def _ends(record: RunRecord) -> str:
    if record.out_of_memory:
        return f"runs out of memory in {record.out_of_memory.phase}"
    return fitting(record) if record.outcome == "pass" else f"ends in {name_of(record.outcome)}"


def _row(result: Result, key: str) -> tuple[str, ...]:
    record, verdict = result.record, result.judgement.verdict
    ending = name_of(record.outcome) if record.outcome != "pass" else fitting(record)
    phase = f" in {record.out_of_memory.phase}" if record.out_of_memory else ""
    badge = "waived" if result.judgement.waived else str(verdict)
    return (
        record.tier,
        tag("a", record.case, href=f"#{key}"),
        record.hardware,
        tag("span", ending + phase, class_=f"badge {record.outcome}"),
        size_text(record, record.peak_bytes()),
        size_text(record, record.limit_bytes) if record.limit_bytes else "none",
        _seconds(record),
        tag("span", badge, class_=f"badge {_kind(result)}"),
    )


def _kind(result: Result) -> str:
    if result.judgement.failing:
        return "bad"
    return "good" if result.judgement.verdict in (Verdict.PASS, Verdict.IMPROVED, Verdict.UPDATED) else "open"


def _seconds(record: RunRecord) -> str:
    timing = record.timing
    if timing.clip_seconds:
        return f"{summarise(timing.clip_seconds).value:.2f}" + ("" if timing.comparable else " (emulated)")
    predicted = timing.predicted_seconds_per_clip
    return "–" if predicted is None else f"{predicted:.2f} (predicted)"


def _section(
    name: str,
    results: Sequence[Result],
    tiers: Mapping[str, Tier],
    everything: Sequence[Result],
    keys: Mapping[int, str],
    history: Sequence[RunRecord],
    settings: Settings,
) -> Markup:
    tier = tiers.get(name)
    title = f"{name}: {tier.title}, {tier.cards} × {tier.card}" if tier else name
    articles = [
        run_article(result, _context(result.record, tier, everything, history, settings), keys[id(result)])
        for result in results
    ]
    return tag("section", tag("h2", title), joined(articles))


def _context(
    record: RunRecord,
    tier: Tier | None,
    everything: Sequence[Result],
    history: Sequence[RunRecord],
    settings: Settings,
) -> Context:
    """All that the page knows of a run beside its record."""
    expected = next((case.expect for case in tier.cases if case.name == record.case), None) if tier else None
    baselines = _baselines(record, settings)
    return Context(
        expected=expected,
        baseline=baselines.get(record.case),
        others=everything,
        known=_known(record, tier, everything, baselines) if tier else (),
        history=same_series(record, history),
        folder=folder_of(settings.report_dir, record),
    )


def _baselines(record: RunRecord, settings: Settings) -> Mapping[str, CaseBaseline]:
    """Reviewed numbers of the tier on this very machine."""
    path = baseline_path(settings.baseline_dir, record)
    return read_baseline(path).cases if path.exists() else {}


def _known(
    record: RunRecord, tier: Tier, everything: Sequence[Result], baselines: Mapping[str, CaseBaseline]
) -> tuple[KnownRemedy, ...]:
    """Cases of the tier that are said to fit and took no part in the session."""
    ran = {each.record.case for each in everything if each.record.tier == tier.name}
    return tuple(
        KnownRemedy(
            case=case.name,
            because=case.expect.because,
            declared=DeclaredRecipe.of(tier.recipe(case)).declared,
            baseline=baselines.get(case.name),
        )
        for case in tier.cases
        if case.expect.outcome == "pass" and case.name not in ran
    )
