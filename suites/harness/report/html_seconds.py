"""Charts of time: seconds a clip as a strip of dots over the baseline's band, and numbers over a history."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from suites.harness.records.record import RunRecord
from suites.harness.report.html_markup import Markup, tag
from suites.harness.verdicts.baselines import CaseBaseline, MetricBaseline
from suites.harness.verdicts.metrics import metric_kind
from suites.harness.verdicts.stats import summarise

WIDTH, HEIGHT, SIDE = 360.0, 74.0, 14.0
Position = Callable[[float], float]
"""A function from seconds to a place in the drawing."""
MEASURED, PREDICTED = "seconds_per_clip", "predicted_seconds_per_clip"


def one_number(record: RunRecord, baseline: CaseBaseline | None) -> Markup | None:
    """The one number of a run that has no more, in words: a dot alone is no chart. None with none, or with several."""
    clips, predicted = _numbers(record)
    if len(clips) + (predicted is not None) != 1:
        return None
    words = "; ".join(_words(record, clips, predicted, _band(record, baseline)))
    return tag("p", tag("b", "Seconds a clip"), f" {words}", class_="seconds-text")


def strip_plot(record: RunRecord, baseline: CaseBaseline | None, key: str) -> Markup | None:
    """Every measured clip, the prediction and what the baseline allows; None where there are not two numbers."""
    clips, predicted = _numbers(record)
    values = [*clips, *([predicted] if predicted is not None else [])]
    if len(values) < 2:
        return None
    band = _band(record, baseline)
    words = "; ".join(_words(record, clips, predicted, band))
    low, high = _range([*values, *(end for end in band or () if math.isfinite(end))])

    def x(seconds: float) -> float:
        return SIDE + (seconds - low) / (high - low) * (WIDTH - 2 * SIDE)

    return tag(
        "figure",
        tag("figcaption", tag("b", "Seconds a clip"), tag("span", f" {words}", class_="quiet")),
        tag(
            "svg",
            tag("title", f"Seconds a clip, {record.case} on {record.tier}, {record.hardware}", id=f"{key}-title"),
            tag("desc", words, id=f"{key}-desc"),
            *_ticks(low, high, x),
            *([_band_mark(band, low, high, x)] if band else []),
            *(_dot(index, seconds, x) for index, seconds in enumerate(clips)),
            *([_diamond(predicted, x)] if predicted is not None else []),
            viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
            role="img",
            aria_labelledby=f"{key}-title {key}-desc",
            class_="seconds",
        ),
    )


def _numbers(record: RunRecord) -> tuple[list[float], float | None]:
    """Seconds of the clips that were measured, and what is predicted."""
    clips = [seconds for seconds in record.timing.clip_seconds if math.isfinite(seconds)]
    return clips, record.timing.predicted_seconds_per_clip


def _band(record: RunRecord, baseline: CaseBaseline | None) -> tuple[float, float] | None:
    """The band that the baseline allows for the number that is gated in this mode."""
    gated = MEASURED if record.timing.comparable else PREDICTED
    metric = baseline.metrics.get(gated) if baseline else None
    return allowed(gated, metric) if metric else None


def allowed(name: str, metric: MetricBaseline) -> tuple[float, float]:
    """The lowest and the highest value that a metric may have; infinite on the side on which it improves."""
    worse = max(metric.rel * abs(metric.value), metric.abs)
    better = metric_kind(name).better
    if better == "nearer to 0":
        return -abs(metric.value) - worse, abs(metric.value) + worse
    return (-math.inf, metric.value + worse) if better == "lower" else (metric.value - worse, math.inf)


def allowed_text(limits: tuple[float, float], form: str = ".4g") -> str:
    """`at most 20.8`, `at least 0.98`, or `-20 to 20`."""
    low, high = (f"{limit:{form}}" for limit in limits)
    if math.isinf(limits[0]):
        return f"at most {high}"
    return f"at least {low}" if math.isinf(limits[1]) else f"{low} to {high}"


def _words(
    record: RunRecord, clips: Sequence[float], predicted: float | None, band: tuple[float, float] | None
) -> Iterator[str]:
    if clips:
        note = "" if record.timing.comparable else ", on imitated cards: not for comparison"
        yield f"● {len(clips)} measured, median {summarise(clips).value:.2f} s{note}"
    if predicted is not None:
        yield f"◆ predicted {predicted:.2f} s, no clock was read"
    yield f"▬ baseline allows {allowed_text(band, '.2f')} s" if band else "no baseline"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.15 or max(abs(high) * 0.1, 1e-3)
    return low - room, high + room


def _ticks(low: float, high: float, x: Position) -> Iterator[Markup]:
    yield tag("line", x1=SIDE, x2=WIDTH - SIDE, y1=52.0, y2=52.0, class_="axis")
    for part, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        seconds = low + part * (high - low)
        yield tag("text", f"{seconds:.3g} s", x=x(seconds), y=66.0, text_anchor=anchor)


def _band_mark(band: tuple[float, float], low: float, high: float, x: Position) -> Markup:
    left, right = x(max(band[0], low)), x(min(band[1], high))
    title = tag("title", f"baseline allows {allowed_text(band, '.3f')} s")
    return tag("rect", title, x=left, y=10.0, width=right - left, height=42.0, class_="band")


def _dot(index: int, seconds: float, x: Position) -> Markup:
    title = tag("title", f"clip {index + 1}: {seconds:.3f} s")
    return tag("circle", title, cx=x(seconds), cy=22.0 + index % 3 * 9, r=4.0, class_="clip")


def _diamond(seconds: float, x: Position) -> Markup:
    return tag(
        "path",
        tag("title", f"predicted: {seconds:.3f} s"),
        d=f"M{x(seconds):.1f} 24l7 7l-7 7l-7 -7Z",
        class_="predicted",
    )


def trend(name: str, values: Sequence[tuple[str, float]], key: str, fence: tuple[float, float] | None = None) -> Markup:
    """A number over the runs of a history, oldest first; red where the last one lies outside of `fence`.

    `values`: label and number; at least one.
    """
    numbers = [number for _, number in values]
    low, high = _range([*numbers, *(fence or ())])

    def y(number: float) -> float:
        return 50 - (number - low) / (high - low) * 40

    step = (WIDTH - 2 * SIDE) / max(len(values) - 1, 1)
    dots = [(SIDE + index * step, y(number)) for index, number in enumerate(numbers)]
    outside = fence is not None and not fence[0] <= numbers[-1] <= fence[1]
    words = f"{len(values)} runs, first {numbers[0]:.4g}, last {numbers[-1]:.4g}{_fence_words(fence, outside)}"
    return tag(
        "figure",
        tag("figcaption", tag("b", name), tag("span", f" {words}", class_="quiet")),
        tag(
            "svg",
            tag("title", name, id=f"{key}-title"),
            tag("desc", words, id=f"{key}-desc"),
            _fence_mark(y(fence[1]), y(fence[0])) if fence else None,
            tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in dots), class_="trend"),
            *(
                tag("circle", tag("title", f"{label}: {number:.4g}"), cx=x, cy=height, r=3.0, class_="run")
                for (x, height), (label, number) in zip(dots, values, strict=True)
            ),
            tag("circle", cx=dots[-1][0], cy=dots[-1][1], r=6.0, class_="outside") if outside else None,
            tag("text", values[0][0], x=SIDE, y=68.0),
            tag("text", values[-1][0], x=WIDTH - SIDE, y=68.0, text_anchor="end") if len(values) > 1 else None,
            viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
            role="img",
            aria_labelledby=f"{key}-title {key}-desc",
            class_="history",
        ),
    )


def _fence_words(fence: tuple[float, float] | None, outside: bool) -> str:
    if fence is None:
        return ""
    return f"; {'OUTSIDE' if outside else 'within'} the fence {fence[0]:.4g} to {fence[1]:.4g} of those before it"


def _fence_mark(top: float, bottom: float) -> Markup:
    """A fence of runs that were all alike has no height: a line."""
    return tag("rect", x=SIDE, y=top, width=WIDTH - 2 * SIDE, height=max(bottom - top, 1.0), class_="fence")
