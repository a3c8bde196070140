"""The page of a session (`--report-html`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from liveavatar_core.files import write_atomically
from suites.harness.cases.tiers import Tier
from suites.harness.pytest_plugin.options import Settings
from suites.harness.pytest_plugin.session import Result
from suites.harness.records.history import series_of
from suites.harness.records.record import DeclaredRecipe, RunRecord
from suites.harness.report.html_header import header, in_order, section_key
from suites.harness.report.html_markup import Markup, joined, tag
from suites.harness.report.html_memory import reading_help
from suites.harness.report.html_page import page
from suites.harness.report.html_run import Context, KnownRemedy, folder_of, notice, run_article
from suites.harness.verdicts.baselines import CaseBaseline, baseline_path, read_baseline


def write_html(
    path: Path, results: Sequence[Result], tiers: Mapping[str, Tier], settings: Settings, notices: Iterable[str] = ()
) -> None:
    """Write the page of a session. Raises BadData where it cannot be written."""
    write_atomically(path, render_html(results, tiers, settings, notices))


def render_html(
    results: Sequence[Result], tiers: Mapping[str, Tier], settings: Settings, notices: Iterable[str] = ()
) -> str:
    """The page: answers first, then a section for each tier. `notices`: what else needs a decision, two lines each."""
    ordered = in_order(results)
    keys = {id(result): f"run-{number}" for number, result in enumerate(ordered)}
    sections = [
        _section(name, list(group), tiers, ordered, keys, settings)
        for name, group in groupby(ordered, key=lambda each: each.record.tier)
    ]
    body = [header(ordered, keys, tiers, map(notice, notices)), tag("main", *sections, reading_help())]
    return page("Live Avatar: conformance", body)


def _section(
    name: str,
    results: Sequence[Result],
    tiers: Mapping[str, Tier],
    everything: Sequence[Result],
    keys: Mapping[int, str],
    settings: Settings,
) -> Markup:
    tier = tiers.get(name)
    title = f"{name}: {tier.title}, {tier.cards} × {tier.card}" if tier else name
    articles = [
        run_article(result, _context(result, tier, everything, settings), keys[id(result)]) for result in results
    ]
    return tag("section", tag("h2", title, id=section_key(name)), joined(articles))


def _context(
    result: Result,
    tier: Tier | None,
    everything: Sequence[Result],
    settings: Settings,
) -> Context:
    """All that the page knows of a run beside its record."""
    record = result.record
    expected = next((case.expect for case in tier.cases if case.name == record.case), None) if tier else None
    baselines = _baselines(record, settings)
    return Context(
        expected=expected,
        baseline=baselines.get(record.case),
        others=everything,
        known=_known(record, tier, everything, baselines) if tier else (),
        history=series_of(settings.history, record) if settings.history else (),
        folder=folder_of(result.report_dir or settings.report_dir, record),
        full_size={case.name: DeclaredRecipe.of(tier.recipe(case)).declared for case in tier.cases} if tier else {},
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
