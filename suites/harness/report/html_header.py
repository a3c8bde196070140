"""The top of a session's page: the answers, what needs a decision, where it ran, contents and the table of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from suites.harness.cases.tiers import Tier
from suites.harness.pytest_plugin.session import Result
from suites.harness.records.record import HARDWARE_MODES, RunRecord
from suites.harness.report.answers import STATE_WORDS, CardsAnswer, answers
from suites.harness.report.figures import name_of, number_text, place_of, room_text, size_text, speed_of
from suites.harness.report.html_markup import Markup, tag
from suites.harness.report.html_tables import pairs, table
from suites.harness.verdicts.verdict import Verdict, worst

STATE_STYLE = {"runs": "good", "runs if": "open", "does not run": "bad", "not answered": "none"}
COLUMNS = (
    "Tier",
    "Case",
    "On",
    "Ends in",
    "Peak a card",
    "Limit",
    "Room",
    "Seconds a clip",
    "Frames a second",
    "Real-time factor",
    "Verdict",
)


def in_order(results: Iterable[Result]) -> list[Result]:
    """Tiers of which something real or simulated ran before those of miniatures alone, and so within a tier."""
    every = list(results)
    large = {each.record.tier for each in every if each.record.hardware != "miniature"}

    def place(result: Result) -> tuple[bool, str, bool, str, int]:
        record = result.record
        mode = HARDWARE_MODES.index(record.hardware)
        return record.tier not in large, record.tier, record.hardware == "miniature", record.case, mode

    return sorted(every, key=place)


def header(
    results: Sequence[Result], keys: Mapping[int, str], tiers: Mapping[str, Tier], notices: Iterable[Markup]
) -> Markup:
    """Everything above the first tier. `keys`: what each run is called in the page, by the identity of its result."""
    found = answers([each.record for each in results], tiers)
    rows = [_row(result, keys[id(result)]) for result in results]
    return tag(
        "header",
        tag("p", "Live Avatar: conformance", class_="kicker"),
        tag("h1", _headline(found)),
        tag("ul", *map(_answer, found), class_="answers") if found else None,
        _verdict(results) if results else None,
        *notices,
        _facts([each.record for each in results]) if results else None,
        _contents(results, keys, tiers) if results else None,
        table(COLUMNS, rows, class_="runs") if rows else tag("p", "No run of a tier took part in this session."),
    )


def _headline(found: Sequence[CardsAnswer]) -> str:
    """The answers in a few words."""
    if not found:
        return "Nothing ran"
    if len(found) == 1:
        return f"{found[0].cards}: {STATE_WORDS[found[0].state]}"
    counts = {state: sum(each.state == state for each in found) for state in STATE_WORDS}
    told = ", ".join(f"{count} {_words(state, count)}" for state, count in counts.items() if count)
    return f"Of {len(found)} sets of cards {told}"


def _words(state: str, count: int) -> str:
    words = STATE_WORDS[state]  # type: ignore[index]
    plural = {"runs": "run", "runs if": "run if laid out otherwise", "does not run": "do not run"}
    return words if count == 1 else plural.get(state, "are not answered here")


def _answer(answer: CardsAnswer) -> Markup:
    state = tag("span", STATE_WORDS[answer.state], class_=f"badge {STATE_STYLE[answer.state]}")
    sentences = ". ".join(f"{each[:1]}{each[1:]}" for each in answer.sentences)
    return tag(
        "li",
        tag("p", tag("b", answer.cards), " ", state, tag("span", f" {answer.hardware}", class_="quiet")),
        tag("p", f"{sentences}."),
        command(answer.command),
    )


def command(text: str) -> Markup:
    """A command to be copied; it breaks between words alone."""
    words = (tag("span", word) for word in text.split(" "))
    spaced = [part for word in words for part in (word, " ")][:-1]
    return tag("p", tag("code", *spaced), class_="command")


def _verdict(results: Sequence[Result]) -> Markup:
    """The session's verdict in a sentence."""
    failing = [result for result in results if result.judgement.failing]
    if not failing:
        count = "The run" if len(results) == 1 else f"All {len(results)} runs"
        return tag("p", f"{count} ended as expected", class_="verdict good")
    grave = worst(result.judgement.verdict for result in failing)
    return tag("p", f"{len(failing)} of {len(results)} runs need a decision: {grave}", class_="verdict bad")


def _facts(records: Sequence[RunRecord]) -> Markup:
    """What was tried, when, and on what."""
    values = {
        "commit": (each.commit for each in records),
        "date": (each.date.isoformat() for each in records),
        "machine": map(_machine, records),
        "torch": (each.machine.torch for each in records),
    }
    shown = {name: ", ".join(dict.fromkeys(each for each in found if each)) for name, found in values.items()}
    return tag("div", pairs((name, text or "not known") for name, text in shown.items()), class_="facts")


def _machine(record: RunRecord) -> str:
    """Cards where there are some, else the processor that stood in for them."""
    machine = record.machine
    if record.hardware in ("physical", "partitioned"):
        return f"{machine.cards} × {machine.card}"
    return f"{machine.host_cores or '?'} cores of {machine.host_cpu or 'a processor without a name'} (no card)"


def _contents(results: Sequence[Result], keys: Mapping[int, str], tiers: Mapping[str, Tier]) -> Markup:
    items = []
    for name, group in groupby(results, key=lambda each: each.record.tier):
        runs = [
            tag("li", tag("a", f"{each.record.case}, {place_of(each.record)}", href=f"#{keys[id(each)]}"))
            for each in group
        ]
        title = tiers[name].title if name in tiers else name
        items.append(tag("li", tag("a", f"{name}: {title}", href=f"#{section_key(name)}"), tag("ul", *runs)))
    items.append(tag("li", tag("a", "How to read the charts", href="#reading")))
    return tag("details", tag("summary", "Contents"), tag("nav", tag("ul", *items), aria_label="Contents"))


def section_key(tier: str) -> str:
    """What a tier's section is called in the page."""
    return f"tier-{tier}"


def _row(result: Result, key: str) -> tuple[str, ...]:
    record, speed = result.record, speed_of(result.record)
    ending = name_of(record.outcome) if record.outcome != "pass" else "fits"
    phase = f" in {record.out_of_memory.phase}" if record.out_of_memory else ""
    badge = "waived" if result.judgement.waived else str(result.judgement.verdict)
    note = f" ({speed.note})" if speed and speed.note else ""
    return (
        record.tier,
        tag("a", record.case, href=f"#{key}"),
        place_of(record),
        tag("span", ending + phase, class_=f"badge {record.outcome}"),
        size_text(record, record.peak_bytes()),
        size_text(record, record.limit_bytes) if record.limit_bytes else "none",
        room_text(record),
        f"{number_text(speed.seconds_per_clip)}{note}" if speed else "–",
        number_text(speed.frames_per_second if speed else None),
        number_text(speed.real_time_factor if speed else None),
        tag("span", badge, class_=f"badge {_kind(result)}"),
    )


def _kind(result: Result) -> str:
    if result.judgement.failing:
        return "bad"
    return "good" if result.judgement.verdict in (Verdict.PASS, Verdict.IMPROVED, Verdict.UPDATED) else "open"
