"""Where the seconds of a run went, how its frames came, and what NCCL said of itself, for the page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from suites.harness.records.nccl import NcclReport
from suites.harness.records.record import RunRecord
from suites.harness.records.run_times import PARTS_OF_TIME
from suites.harness.report.html_markup import Markup, tag
from suites.harness.report.html_tables import pairs, table
from suites.harness.verdicts.metrics import metric_kind
from suites.harness.verdicts.stats import summarise
from suites.harness.verdicts.timings import time_samples


def time_tables(record: RunRecord) -> Markup | None:
    """Every metric of time with its spread, and each rank's share of a clip; None where no clock was read."""
    timing = record.timing
    samples = time_samples(timing)
    if not samples:
        return None
    rows = [
        (metric_kind(name).heading, f"{found.value:.4g}", found.spread_text, str(found.n))
        for name, found in ((name, summarise(values)) for name, values in samples.items())
    ]
    return tag(
        "details",
        tag("summary", "Where the seconds went"),
        tag("p", _rounds(record), class_="quiet"),
        table(("", "Median", "Spread", "Samples"), rows, class_="times"),
        table(("Rank", *PARTS_OF_TIME), _by_rank(record), class_="rank-times") if timing.parts else None,
    )


def _rounds(record: RunRecord) -> str:
    timing = record.timing
    warm_up = ", ".join(f"{seconds:.2f} s" for seconds in timing.warm_up_seconds)
    told = f"{len(timing.clip_seconds)} clips measured"
    told += f", behind {len(timing.warm_up_seconds)} that warmed up ({warm_up})" if warm_up else ", none to warm up"
    return f"{told}. Seconds of a part are those of the rank that took longest for it; below, medians of each rank."


def _by_rank(record: RunRecord) -> Iterator[tuple[str, ...]]:
    for rank, group in groupby(record.timing.parts, key=lambda each: each.rank):
        medians = {each.part: summarise(each.seconds).value for each in group}
        yield str(rank), *(f"{medians[part]:.3g}" if part in medians else "–" for part in PARTS_OF_TIME)


def nccl_facts(record: RunRecord) -> Markup | None:
    """What NCCL said of itself, its warnings unfolded; None where it took no part."""
    report = record.nccl
    if report is None:
        return None
    summary = f"NCCL {report.version or 'of unknown version'}: {ways_text(report)}"
    warnings = [tag("li", f"rank {each.rank}: {each.text}") for each in report.warnings]
    facts = pairs(
        (
            ("built with CUDA", report.cuda),
            ("machines", report.nodes),
            ("sizes of communicators", list(report.communicators)),
            ("links, GB/s", report.links),
            ("channels by way", report.transports),
            ("channels of collectives", report.collective_channels),
            ("channels in switches (NVLS)", report.nvls_channels),
            ("channels of sends and receives", report.peer_channels),
        )
    )
    return tag(
        "details",
        tag("summary", summary),
        tag("ul", *warnings, class_="nccl-warnings") if warnings else None,
        facts,
        open="" if warnings else None,
        class_="nccl",
    )


def ways_text(report: NcclReport) -> str:
    """`P2P, NVLS` and the like."""
    ways = dict.fromkeys(way.split("/")[0] for way in report.transports)
    names = [*ways, *(["NVLS"] if report.nvls_channels else [])]
    return ", ".join(names) or "it does not say how cards are connected"
