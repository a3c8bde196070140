"""Tables of the page, and what stands in them. On a narrow screen each row becomes a card (see report.css)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from liveavatar_core import strict
from liveavatar_core.config import ClipSpec
from liveavatar_core.scopes import PHASES
from liveavatar_core.workload import Workload
from suites.harness.records.record import RunRecord
from suites.harness.report.figures import name_of, size_text, unit_of
from suites.harness.report.html_markup import Markup, tag
from suites.harness.verdicts.metrics import metric_kind
from suites.harness.verdicts.stats import summarise
from suites.harness.verdicts.timings import part_name, part_samples


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], **attributes: object) -> Markup:
    """A table; each cell knows its column's title, for narrow screens."""
    body = [
        tag("tr", *(tag("td", cell, data_title=title) for title, cell in zip(titles, row, strict=True))) for row in rows
    ]
    head = tag("tr", *(tag("th", title, scope="col") for title in titles))
    return tag("table", tag("thead", head), tag("tbody", *body), **attributes)


def pairs(values: Iterable[tuple[str, object]]) -> Markup:
    """Names and values; without those that are None or empty."""
    shown = [(name, _plain(value)) for name, value in values if value not in (None, "", {}, ())]
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", text)) for name, text in shown))


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, default=str)


def environment(record: RunRecord) -> Markup:
    """A table of what the run stood on, and what it ran."""
    machine = [(name.replace("_", " "), value) for name, value in asdict(record.machine).items()]
    run = [("recipe", f"{record.recipe.name} ({record.recipe.hash})"), *_inputs(record), ("commit", record.commit)]
    return pairs([*run, ("date", record.date.isoformat()), ("run", record.run), *machine])


def _inputs(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Portrait, voice and clips that the run was given, with the pixels and tokens that follow; none where unknown."""
    declared = record.recipe.declared
    if not {"clip", "workload"} <= declared.keys():
        return
    clip = strict.build(ClipSpec, declared["clip"], "declared clip")
    workload = strict.build(Workload, declared["workload"], "declared workload")
    height, width = workload.output_size(clip.max_area)
    tokens = workload.tokens_per_frame(clip.max_area)
    portrait = f"{workload.portrait_width}x{workload.portrait_height}"
    yield "portrait", f"{portrait}, video {width}x{height}, {tokens} tokens a latent frame"
    voice = "as long as the clips" if workload.voice_seconds is None else f"{workload.voice_seconds:g} s"
    yield "voice", f"{voice}; {clip.num_clip} clips of {clip.infer_frames} frames"


def phase_table(record: RunRecord) -> Markup:
    """Every reading of memory."""
    unit, name = unit_of(record)
    rows = [
        (
            str(each.rank),
            each.phase,
            *(
                "–" if size is None else f"{size / unit:.2f}"
                for size in (each.allocated_bytes, each.reserved_bytes, each.device_used_bytes)
            ),
            ", ".join(f"{name_of(word)} {size / unit:.2f}" for word, size in (each.by_category or {}).items() if size),
        )
        for each in record.memory
    ]
    return table(("Rank", "Phase", f"Allocated, {name}", "Reserved", "Used on the card", "For what"), rows)


def agreement(predicted: RunRecord, measured: RunRecord) -> Markup:
    """The simulation of a case beside a measurement of it: the fullest card of each phase, and seconds."""
    rows = [
        *_peaks(predicted, measured),
        *_seconds(predicted, measured),
    ]
    titles = ("", "Predicted", f"Measured, {measured.hardware}", "Difference")
    return table(titles, rows, class_="agreement")


def _peaks(predicted: RunRecord, measured: RunRecord) -> Iterator[tuple[str, ...]]:
    for phase in PHASES:
        before, after = predicted.peak_bytes(phase=phase), measured.peak_bytes(phase=phase)
        if before and after:
            texts = size_text(predicted, before), size_text(predicted, after)
            yield (f"peak in {phase}", *texts, f"{before / after - 1:+.1%}")


def _seconds(predicted: RunRecord, measured: RunRecord) -> Iterator[tuple[str, ...]]:
    before, clips = predicted.timing.predicted_seconds_per_clip, measured.timing.clip_seconds
    if before is not None and clips:
        after = summarise(clips).value
        yield "seconds a clip", f"{before:.2f} s", f"{after:.2f} s", f"{before / after - 1:+.1%}"
    parts = {part: summarise(samples).value for part, samples in part_samples(measured.timing).items()}
    for part, seconds in predicted.timing.predicted_seconds_by_part.items():
        if parts.get(part):
            difference = f"{seconds / parts[part] - 1:+.1%}"
            yield metric_kind(part_name(part)).title, f"{seconds:.2f} s", f"{parts[part]:.2f} s", difference


def changes(failing: dict[str, Any], fitting: dict[str, Any]) -> list[str]:
    """The inputs that a run that fits declares otherwise, `name = value` each."""
    before, after = _flat(failing), _flat(fitting)
    return [f"{name} = {_plain(after[name])}" for name in sorted(after) if after[name] != before.get(name)]


def _flat(declared: dict[str, Any]) -> dict[str, Any]:
    """Fields of the clip and of the deployment: what a person can choose."""
    parts = (declared.get(name) for name in ("clip", "deployment"))
    return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
