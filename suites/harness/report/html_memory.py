"""The chart of a card's memory over a run: stacked by category, the limit as a line, phases, where it ran out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from liveavatar_core.scopes import CATEGORIES, PHASES
from suites.harness.records.measurements import MemoryTimeline
from suites.harness.records.record import RunRecord
from suites.harness.report.figures import name_of, ranks_text, size_text, unit_of
from suites.harness.report.html_markup import Markup, joined, tag
from suites.harness.report.html_tables import pairs

WIDTH, HEIGHT = 360.0, 246.0
"""Units of the drawing: about as many pixels on a narrow phone, so that its text stays readable there."""
LEFT, RIGHT, TOP, BOTTOM = 34.0, 8.0, 20.0, 62.0
NARROWEST_LABEL = 42.0
"""A phase that is drawn narrower than this has no room for its name; pointing at it shows it."""
SHORTAGE = 30.0
"""Room at the end for what could not be had."""
NARROWEST_MOMENT = 1.5
"""Moments that are drawn narrower than this cannot be pointed at: neighbours become one, and the fullest is told."""
ALONG_WORDS = (
    "From left to right the run goes on: in time where a clock was read; allocation by allocation in a simulation,"
    " which reads none. Pointing at a moment shows what stood then. The strip below tells the phases:"
)
PHASE_WORDS = {
    "load": "weights are read and laid over the cards",
    "encode": "prompt, voice and portrait become what the transformer takes",
    "prefill": "the tokens that every block attends to are put into the KV caches",
    "denoise": "blocks of latent frames are made, step by step",
    "decode": "latent frames become pictures",
}
CATEGORY_WORDS = {
    "parameters": "weights that stay on the card, whole or a shard of them",
    "unsharded_parameters": "weights gathered from all ranks for the moment in which they compute",
    "kv_cache": "keys and values of blocks that are made, and of the sink",
    "activations": "what the layers compute, freed soon after",
    "decoder_cache": "frames that the decoder keeps to go on from",
    "allocated": "bytes in live tensors, where a real card was asked",
    "cached": "bytes that torch's allocator keeps for later beyond those",
}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The mapping from allocations (or milliseconds) and bytes to the drawing."""

    first: int
    last: int
    most: float
    right: float

    def x(self, position: float) -> float:
        """The place of a moment, from the left."""
        return LEFT + (position - self.first) / max(self.last - self.first, 1) * (self.right - LEFT)

    def y(self, size: float) -> float:
        """How high a size reaches."""
        return HEIGHT - BOTTOM - size / self.most * (HEIGHT - TOP - BOTTOM)


def memory_charts(record: RunRecord, key: str) -> Markup:
    """A chart for each rank; ranks whose memory went alike share one. `key`: unique in the page."""
    charts = (
        _figure(record, timeline, ranks, f"{key}-memory-{number}")
        for number, (timeline, ranks) in enumerate(alike(lines_of(record)))
    )
    return joined(charts)


def lines_of(record: RunRecord) -> list[MemoryTimeline]:
    """The timelines; where a run has none, its fullest moment of each phase in their stead."""
    return list(record.timelines) or [_of_peaks(record, rank) for rank in record.ranks]


def _of_peaks(record: RunRecord, rank: int) -> MemoryTimeline:
    readings = [each for each in record.memory if each.rank == rank and each.by_category is not None]
    readings.sort(key=lambda each: PHASES.index(each.phase))
    held = [each.by_category or {} for each in readings]
    return MemoryTimeline(
        rank=rank,
        phases=tuple(each.phase for each in readings),
        starts=tuple(range(len(readings))),
        bytes_by_category={
            name: tuple(each.get(name, 0) for each in held) for name in {n for each in held for n in each}
        },
    )


def alike(lines: Sequence[MemoryTimeline]) -> list[tuple[MemoryTimeline, list[int]]]:
    """Each different timeline, and the ranks that have it."""
    groups: list[tuple[MemoryTimeline, list[int]]] = []
    for line in lines:
        same = next((ranks for first, ranks in groups if replace(line, rank=first.rank) == first), None)
        if same is None:
            groups.append((line, [line.rank]))
        else:
            same.append(line.rank)
    return [(line, ranks) for line, ranks in groups if line.phases]


def _figure(record: RunRecord, line: MemoryTimeline, ranks: list[int], key: str) -> Markup:
    title = f"Memory of {ranks_text(ranks)}"
    return tag(
        "figure",
        tag("figcaption", tag("b", title), tag("span", f" {_summary(record, line, ranks)}", class_="quiet")),
        tag(
            "svg",
            tag("title", f"{title}, {record.case} on {record.tier}, {record.hardware}", id=f"{key}-title"),
            tag("desc", _summary(record, line, ranks), id=f"{key}-desc"),
            *_marks(record, line, ranks),
            viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
            role="img",
            aria_labelledby=f"{key}-title {key}-desc",
            class_="memory",
        ),
        _legend(line),
    )


def reading_help() -> Markup:
    """What the charts show, said once for the page."""
    return tag(
        "section",
        tag("h2", "How to read the charts", id="reading"),
        tag("p", "Height is memory of one card, stacked by what it is for. The dashed line is what a run may use."),
        tag("p", ALONG_WORDS),
        pairs(PHASE_WORDS.items()),
        tag("p", "Memory is for:"),
        pairs((name_of(name), text) for name, text in CATEGORY_WORDS.items()),
        class_="reading",
    )


def totals(line: MemoryTimeline) -> list[int]:
    """Bytes held at each point."""
    return [sum(column[at] for column in line.bytes_by_category.values()) for at in range(len(line.phases))]


def _summary(record: RunRecord, line: MemoryTimeline, ranks: list[int]) -> str:
    held = totals(line)
    fullest = max(range(len(held)), key=held.__getitem__)
    limit = f" of {size_text(record, record.limit_bytes)}" if record.limit_bytes else ""
    text = f"fullest in {line.phases[fullest]}: {size_text(record, held[fullest])}{limit}"
    if line.axis == "milliseconds" and record.timelines:
        text += f"; begins of phases over {line.starts[-1] / 1000:.1f} s"
    short = record.out_of_memory
    if short is None or short.rank not in ranks:
        return text
    asked, free = size_text(record, short.requested), size_text(record, short.free)
    return f"{text}; out of memory in {short.phase}: {asked} asked, {free} free"


def _marks(record: RunRecord, line: MemoryTimeline, ranks: list[int]) -> Iterator[Markup]:
    short = record.out_of_memory if record.out_of_memory and record.out_of_memory.rank in ranks else None
    needed = short.capacity - short.free + (short.requested or 0) if short else 0
    tallest = max(*totals(line), record.limit_bytes or 0, needed)
    ends = line.starts[-1] + max(1, (line.starts[-1] - line.starts[0]) // 60)
    right = WIDTH - RIGHT - (SHORTAGE if short else 0)
    scale = Scale(first=line.starts[0], last=ends, most=max(tallest * 1.08, 1), right=right)
    yield from _axis(record, scale)
    yield from _areas(record, line, scale)
    yield from _phases(line, scale)
    yield from _along(record, line, scale)
    if short:
        yield from _shortage(record, short.capacity - short.free, short.requested or 0, scale)
    if record.limit_bytes:
        yield from _limit(record, record.limit_bytes, scale)
    yield from _moments(record, line, scale)


def _along(record: RunRecord, line: MemoryTimeline, scale: Scale) -> Iterator[Markup]:
    """What lies from left to right: ticks and the name of the axis."""
    if not record.timelines:
        yield _axis_name("the fullest moment of each phase, one after the other")
        return
    unit, name = _along_unit(line)
    step = tick_step((scale.last - scale.first) / unit)
    number = -(-scale.first // (step * unit))  # the first tick that is in the drawing
    while number * step * unit <= scale.last:
        x = scale.x(number * step * unit)
        yield tag("line", x1=x, x2=x, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 3, class_="axis")
        yield tag("text", f"{number * step:,.12g}", x=x, y=HEIGHT - 18, text_anchor="middle")
        number += 1
    yield _axis_name(name)


def _along_unit(line: MemoryTimeline) -> tuple[int, str]:
    """In what the axis counts."""
    if line.axis == "allocations":
        return 1, "allocations on the card so far"
    if line.starts[-1] - line.starts[0] < LONG_MILLISECONDS:
        return 1, "milliseconds since the rank began"
    return 1000, "seconds since the rank began"


LONG_MILLISECONDS = 10_000
"""From here on seconds are counted."""


def _axis_name(text: str) -> Markup:
    return tag("text", text, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 4, text_anchor="middle", class_="axis-name")


def _moments(record: RunRecord, line: MemoryTimeline, scale: Scale) -> Iterator[Markup]:
    """Over each stretch a field that cannot be seen; pointing at it shows what stood then."""
    ends, held = [*line.starts[1:], scale.last], totals(line)
    at = 0
    while at < len(ends):
        after = at + 1
        while after < len(ends) and scale.x(ends[after - 1]) - scale.x(line.starts[at]) < NARROWEST_MOMENT:
            after += 1
        left, right = scale.x(line.starts[at]), scale.x(ends[after - 1])
        fullest = max(range(at, after), key=held.__getitem__)
        words = tag("title", _moment_text(record, line, fullest))
        yield tag("rect", words, x=left, y=TOP, width=right - left, height=HEIGHT - TOP - BOTTOM + 14, class_="moment")
        at = after


def _moment_text(record: RunRecord, line: MemoryTimeline, at: int) -> str:
    """What stood at a moment, largest first, a line each."""
    when = ""
    if record.timelines:
        place = f"{line.starts[at]:,}"
        when = f", {place} ms" if line.axis == "milliseconds" else f", after {place} allocations"
    held = {name: column[at] for name, column in line.bytes_by_category.items() if column[at]}
    limit = f" of {size_text(record, record.limit_bytes)}" if record.limit_bytes else ""
    lines = [f"{line.phases[at]}{when}: {size_text(record, sum(held.values()))}{limit}"]
    lines += [f"{name_of(name)} {size_text(record, size)}" for name, size in sorted(held.items(), key=lambda x: -x[1])]
    return "\n".join(lines)


def _axis(record: RunRecord, scale: Scale) -> Iterator[Markup]:
    unit, name = unit_of(record)
    step = tick_step(scale.most / unit)
    for number in range(int(scale.most / unit / step) + 1):
        y = scale.y(number * step * unit)
        yield tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid")
        yield tag("text", f"{number * step:g}", x=LEFT - 5, y=y + 3.5, text_anchor="end")
    yield tag("text", name, x=2.0, y=8.0)


def tick_step(most: float, ticks: int = 5) -> float:
    """A round distance (1, 2 or 5 times a power of ten) that makes about so many ticks."""
    rough = most / ticks
    power = 10.0 ** (len(str(int(rough))) - 1) if rough >= 1 else 0.1
    return next((power * factor for factor in (1, 2, 5, 10) if power * factor >= rough), rough)


def _areas(record: RunRecord, line: MemoryTimeline, scale: Scale) -> Iterator[Markup]:
    """One path a category that is ever held, lowest first."""
    base = [0] * len(line.phases)
    for name in sorted(line.bytes_by_category, key=_order):
        column = line.bytes_by_category[name]
        if any(column):
            top = [under + held for under, held in zip(base, column, strict=True)]
            most = size_text(record, max(column))
            yield tag(
                "path",
                tag("title", f"{name_of(name)}, at most {most}"),
                d=_outline(line, base, top, scale),
                class_=f"area {colour(name)}",
            )
            base = top


COLOURED = (*CATEGORIES, "allocated", "cached")
"""The quantities with a colour of their own, in the order of stacking: a tracker's categories, or an allocator's."""


def _order(name: str) -> int:
    return COLOURED.index(name) if name in COLOURED else len(COLOURED)


def colour(name: str) -> str:
    """The style class of a category."""
    return f"c-{name}" if name in COLOURED else "c-other"


def _outline(line: MemoryTimeline, base: list[int], top: list[int], scale: Scale) -> str:
    """Steps along the top, and back along the base."""
    ends = [*line.starts[1:], scale.last]
    forth = [
        f"{scale.x(x):.1f} {scale.y(size):.1f}"
        for start, end, size in zip(line.starts, ends, top, strict=True)
        for x in (start, end)
    ]
    back = [
        f"{scale.x(x):.1f} {scale.y(size):.1f}"
        for start, end, size in zip(line.starts, ends, base, strict=True)
        for x in (start, end)
    ]
    return f"M{' '.join(forth + back[::-1])}Z"


def _phases(line: MemoryTimeline, scale: Scale) -> Iterator[Markup]:
    """A strip below the plot, and a line where each phase begins."""
    ends = [*line.starts[1:], scale.last]
    at, top = 0, HEIGHT - BOTTOM + 5
    for phase, group in groupby(line.phases):
        count = len(list(group))
        start, end = scale.x(line.starts[at]), scale.x(ends[at + count - 1])
        mark = tag(
            "rect", tag("title", phase), x=start, y=top, width=end - start, height=8.0, class_=f"phase p-{phase}"
        )
        yield mark
        if at:
            yield tag("line", x1=start, x2=start, y1=TOP, y2=HEIGHT - BOTTOM, class_="begins")
        if end - start >= NARROWEST_LABEL:
            yield tag("text", phase, x=(start + end) / 2, y=HEIGHT - BOTTOM + 25, text_anchor="middle")
        at += count


def _limit(record: RunRecord, limit: int, scale: Scale) -> Iterator[Markup]:
    y = scale.y(limit)
    yield tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="limit")
    yield tag("text", f"limit {size_text(record, limit)}", x=LEFT + 4, y=y - 4, class_="limit-text")


def _shortage(record: RunRecord, held: int, requested: int, scale: Scale) -> Iterator[Markup]:
    """The request that failed, standing on what was held: it pokes through the limit."""
    left, top, bottom = scale.right + 4, scale.y(held + requested), scale.y(held)
    size = size_text(record, requested)
    yield tag(
        "g",
        tag("title", f"out of memory: {size} asked on top of {size_text(record, held)}"),
        tag("rect", x=left, y=top, width=SHORTAGE - 8, height=max(bottom - top, 2.0), class_="asked"),
        tag("path", d=f"M{left + 5:.1f} {top - 11:.1f}l10 10m0 -10l-10 10", class_="cross"),
        class_="oom",
    )
    yield tag("text", f"{size} asked", x=left, y=top - 2, text_anchor="end", class_="asked-text")


def _legend(line: MemoryTimeline) -> Markup:
    """Categories, and on a line of their own phases: not every phase is drawn wide enough for its name."""
    names = [name for name in sorted(line.bytes_by_category, key=_order) if any(line.bytes_by_category[name])]
    held = [(colour(name), name_of(name), CATEGORY_WORDS.get(name)) for name in names]
    phases = [(f"p-{phase}", phase, PHASE_WORDS[phase]) for phase in PHASES if phase in line.phases]
    return joined(
        tag("ul", *(_key(*key) for key in keys), class_=f"legend {kind}")
        for keys, kind in ((held, "categories"), (phases, "phases"))
    )


def _key(style: str, text: str, about: str | None) -> Markup:
    return tag("li", tag("i", class_=style), text, title=about)
