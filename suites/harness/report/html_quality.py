"""How good a run's video is, for the page: each metric beside its baseline, or why it has no number."""

from __future__ import annotations

from collections.abc import Iterator

from suites.harness.records.record import RunRecord
from suites.harness.report.html_markup import Markup, tag
from suites.harness.report.html_seconds import allowed, allowed_text
from suites.harness.report.html_tables import table
from suites.harness.verdicts.baselines import CaseBaseline, MetricBaseline
from suites.harness.verdicts.metrics import metric_kind


def quality_table(record: RunRecord, baseline: CaseBaseline | None, *, unfolded: bool) -> Markup | None:
    """Every metric of quality, folded where nothing needs a decision; None where nobody looked."""
    if not record.quality and not record.quality_missing:
        return None
    rows = table(("Metric", "What it is", "This run", "Baseline allows"), _rows(record, baseline))
    return tag("details", tag("summary", "Quality of the video"), rows, open="" if unfolded else None, class_="quality")


def _rows(record: RunRecord, baseline: CaseBaseline | None) -> Iterator[tuple[str, ...]]:
    known = baseline.metrics if baseline else {}
    for name, value in record.quality.items():
        yield name, metric_kind(name).title, f"{value:.4g}", _reviewed(name, known.get(name))
    for name, reason in record.quality_missing.items():
        yield name, metric_kind(name).title, f"none: {reason}", _reviewed(name, known.get(name))


def _reviewed(name: str, metric: MetricBaseline | None) -> str:
    if not metric_kind(name).gated:
        return "anything: shown only"
    return "no baseline yet" if metric is None else allowed_text(allowed(name, metric))
