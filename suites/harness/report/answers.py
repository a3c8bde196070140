"""Does it run on these cards? An answer for each set of cards, from its most real runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from suites.harness.cases.tiers import Case, Tier
from suites.harness.records.record import HARDWARE_MODES, RunRecord
from suites.harness.report.figures import fitting, name_of, number_text, room_bytes, size_text, speed_of

PUBLISHED = ("published_sharded", "published_replicated", "single", "timestep_pipeline")
"""Recipes that others published; any other layout is a remedy."""
State = Literal["runs", "runs if", "does not run", "not answered"]
STATE_WORDS: dict[State, str] = {
    "runs": "runs",
    "runs if": "runs if laid out otherwise",
    "does not run": "does not run",
    "not answered": "not answered here",
}
INPUTS = "--ckpt_dir FOLDER --lora_path_dmd FILE --image FILE --audio FILE --prompt TEXT"
"""What `generate` wants beside a layout."""


@dataclass(frozen=True, kw_only=True)
class CardsAnswer:
    """What the runs of a session say about one set of cards."""

    cards: str
    """The cards: how many of which."""
    hardware: str
    """The hardware mode of the runs that say so."""
    state: State
    """Whether it runs."""
    sentences: tuple[str, ...]
    """By how much, with which layout, and how fast."""
    command: str
    """The command that makes it run, or that answers."""


def answers(records: Sequence[RunRecord], tiers: Mapping[str, Tier]) -> list[CardsAnswer]:
    """An answer for each set of cards, in the order of the records."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(_cards(record, tiers), []).append(record)
    return [_answer(cards, group, tiers) for cards, group in groups.items()]


def _cards(record: RunRecord, tiers: Mapping[str, Tier]) -> str:
    tier = tiers.get(record.tier)
    if record.hardware == "physical":
        return f"{record.machine.cards} × {record.machine.card}"
    return f"{tier.cards} × {tier.card}" if tier else record.tier


def _answer(cards: str, records: Sequence[RunRecord], tiers: Mapping[str, Tier]) -> CardsAnswer:
    mode = min((each.hardware for each in records), key=HARDWARE_MODES.index)
    group = [each for each in records if each.hardware == mode]
    if mode == "miniature":
        names = " or ".join(dict.fromkeys(each.tier for each in group))
        ask = f"pytest -m {shlex.quote(names)} --hardware=simulated"
        told = "only small models ran: whether the real one fits, a simulation says"
        return CardsAnswer(cards=cards, hardware=mode, state="not answered", sentences=(told,), command=ask)
    fitting = sorted((each for each in group if each.outcome == "pass"), key=_preference)
    failing = tuple(_failed(each) for each in group if each.outcome != "pass" and _is_published(each))
    if fitting:
        state: State = "runs" if _is_published(fitting[0]) or not failing else "runs if"
        sentences = (*_fits(fitting[0]), *failing)
        return CardsAnswer(
            cards=cards, hardware=mode, state=state, sentences=sentences, command=_run(fitting[0], tiers)
        )
    return _without_a_fit(cards, mode, group, tiers)


def _without_a_fit(cards: str, mode: str, group: Sequence[RunRecord], tiers: Mapping[str, Tier]) -> CardsAnswer:
    """Layouts that are known to fit make it `runs if`; else the search is the next step."""
    failing = tuple(_failed(each) for each in group)
    if all(each.out_of_memory is None for each in group):
        command = f"pytest -m {shlex.quote(group[0].tier)} --hardware={mode}"
        return CardsAnswer(cards=cards, hardware=mode, state="not answered", sentences=failing, command=command)
    known = next(_known(group[0].tier, tiers), None)
    if known is None:
        machine = group[0].machine
        number, model = machine.imitated_cards or machine.cards, machine.imitated_card or machine.card
        asked = shlex.quote(f"{number}x{model}")
        search = f"python -m liveavatar_core fit --cards {asked}"
        return CardsAnswer(cards=cards, hardware=mode, state="does not run", sentences=failing, command=search)
    tier, case = known
    told = (f"{case.name} is known to fit, and did not run here", *failing)
    return CardsAnswer(cards=cards, hardware=mode, state="runs if", sentences=told, command=run_command(tier, case))


def _known(name: str, tiers: Mapping[str, Tier]) -> Iterator[tuple[Tier, Case]]:
    tier = tiers.get(name)
    if tier is not None:
        yield from ((tier, case) for case in tier.cases if case.expect.outcome == "pass")


def _is_published(record: RunRecord) -> bool:
    return record.recipe.name in PUBLISHED


def _preference(record: RunRecord) -> tuple[bool, float]:
    """Published layouts first, then the fastest: the one to be told to run."""
    speed = speed_of(record)
    return not _is_published(record), speed.seconds_per_clip if speed else float("inf")


def _fits(record: RunRecord) -> Iterator[str]:
    room = room_bytes(record)
    left = f" with {size_text(record, room)} a card to spare" if room is not None else ""
    yield f"{record.case} {fitting(record)}{left}{speed_text(record)}"


def speed_text(record: RunRecord) -> str:
    """`; 19.8 s a clip, 2.43 frames a second (predicted)`; nothing where no clip was timed."""
    speed = speed_of(record)
    if speed is None:
        return ""
    frames = f", {number_text(speed.frames_per_second)} frames a second" if speed.frames_per_second else ""
    return f"; {number_text(speed.seconds_per_clip)} s a clip{frames}{f' ({speed.note})' if speed.note else ''}"


def _failed(record: RunRecord) -> str:
    short = record.out_of_memory
    if short is None:
        return f"{record.case} ends in {name_of(record.outcome)}"
    return f"{record.case} lacks {size_text(record, short.shortfall)} a card in {short.phase}"


def _run(record: RunRecord, tiers: Mapping[str, Tier]) -> str:
    tier = tiers.get(record.tier)
    case = next((each for each in tier.cases if each.name == record.case), None) if tier else None
    if tier is None or case is None:
        return f"pytest -m {shlex.quote(record.tier)} --hardware={record.hardware}"
    return run_command(tier, case)


def run_command(tier: Tier, case: Case) -> str:
    """The command that makes a video with a case's recipe on its tier's cards."""
    start = "python" if tier.cards == 1 else f"torchrun --nproc-per-node {tier.cards}"
    changed = [f"--{name}={value}" for name, value in (case.clip | case.deployment).items()]
    layout = shlex.join(["--recipe", case.recipe, *changed])
    return f"{start} -m liveavatar_core generate {layout} {INPUTS}"
