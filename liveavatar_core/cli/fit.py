"""`fit`: which layouts of the model fit on given cards, found by executing each on fake tensors."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from multiprocessing.pool import IMapIterator, Pool
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from liveavatar_core.cli.command import Command
from liveavatar_core.cli.doctor.host import available_memory
from liveavatar_core.cli.plan.layouts import (
    Cards,
    FeasibleLayout,
    InfeasibleLayout,
    candidates,
    judge,
    longest_voice,
    parse_cards,
)
from liveavatar_core.cli.stop_signals import StopSignals
from liveavatar_core.config import ClipSpec, Recipe
from liveavatar_core.errors import GIB, BadInput
from liveavatar_core.hardware.cards import find_card_by_driver_name
from liveavatar_core.hardware.nvml import read_driver
from liveavatar_core.simulation.voice_limit import VoiceLimit

WORKERS = 2
T = TypeVar("T")
Feasibility = FeasibleLayout | InfeasibleLayout


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which cards, what to make, how long to search and how to answer."""
    parser.add_argument("--cards", metavar="CARDS", help='4x24, "RTX 4090", 2xL40S; by default the cards here.')
    parser.add_argument("--host-gib", type=float, metavar="X", help="Memory of their machine. (default: of this one)")
    parser.add_argument("--size", default="688*368", metavar="A*B", help="Size of the video. (default: 688*368)")
    parser.add_argument(
        "--portrait",
        metavar="WxH",
        help="Portrait in pixels; by default that of the most tokens at the size.",
    )
    parser.add_argument("--seconds", type=float, default=60, metavar="X", help="Answer within this. (default: 60)")
    parser.add_argument("--json", action="store_true", help="One JSON document instead of text.")


def run(options: argparse.Namespace, signals: StopSignals) -> int:
    """Print what fits, best first; exit code 0 if something does, else 1."""
    deadline = time.monotonic() + options.seconds
    cards = parse_cards(options.cards) if options.cards else cards_here()
    if options.host_gib is not None:
        cards = replace(cards, host_gib=options.host_gib)
    recipes = candidates(cards, ClipSpec(size=options.size), options.portrait)
    with workers(len(recipes)) as pool:
        verdicts = list(show_progress(judged(pool, recipes, cards, deadline), len(recipes)))
        fits = sorted((v for v in verdicts if isinstance(v, FeasibleLayout)), key=lambda fit: fit.seconds_per_clip)
        fitting = [recipe for fit in fits for recipe in recipes if recipe.name == fit.name]
        voices = dict(longest_voices(pool, fitting, cards, deadline))
    fits = [replace(fit, longest_voice=voices.get(fit.name)) for fit in fits]
    misfits = [v for v in verdicts if isinstance(v, InfeasibleLayout)]
    known = {verdict.name for verdict in verdicts}
    unknown = [recipe.name for recipe in recipes if recipe.name not in known]
    if options.json:
        document = {"cards": str(cards), "usable_gib": cards.card.usable_gib, "not_simulated": unknown}
        parts = {"fits": [asdict(fit) for fit in fits], "misfits": [asdict(misfit) for misfit in misfits]}
        print(json.dumps(document | parts, indent=2))
    else:
        print("\n".join(report(cards, fits, misfits, unknown)))
    return 0 if fits else 1


def cards_here() -> Cards:
    """The cards of this machine, of one kind. Raises BadInput."""
    names = [card.name for card in read_driver().cards]
    if not names:
        raise BadInput("the driver shows no card in this machine", "name some: --cards 4x24")
    kinds = {name: find_card_by_driver_name(name) if name else None for name in names}
    card = kinds[names[0]]
    if len(kinds) > 1 or card is None:
        found = ", ".join(str(name) for name in names)
        raise BadInput(f"cards here: {found}; one known kind is needed", 'name some: --cards 2x"RTX 4090"')
    return Cards(count=len(names), card=card, host_gib=available_memory() / GIB)


def workers(tasks: int) -> Pool:
    """Processes that simulate, at most WORKERS; they end with the context."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each has a core
    return multiprocessing.get_context("spawn").Pool(min(WORKERS, tasks))


def judged(pool: Pool, recipes: Sequence[Recipe], cards: Cards, deadline: float) -> Iterator[Feasibility]:
    """Verdicts as they come, until the deadline."""
    return _until(deadline, pool.imap_unordered(_judge, [(recipe, cards) for recipe in recipes]))


def longest_voices(
    pool: Pool, recipes: Sequence[Recipe], cards: Cards, deadline: float
) -> Iterator[tuple[str, VoiceLimit]]:
    """Name of each layout and how long a voice it holds, as they come, until the deadline."""
    return _until(deadline, pool.imap_unordered(_longest_voice, [(recipe, cards) for recipe in recipes]))


def _until(deadline: float, results: IMapIterator[T]) -> Iterator[T]:
    with suppress(multiprocessing.TimeoutError, StopIteration):
        while True:
            yield results.next(max(0.0, deadline - time.monotonic()))


def _longest_voice(work: tuple[Recipe, Cards]) -> tuple[str, VoiceLimit]:
    recipe, cards = work
    return recipe.name, longest_voice(recipe, cards.card, cards.host_gib)


def _judge(work: tuple[Recipe, Cards]) -> Feasibility:
    recipe, cards = work
    return judge(recipe, cards.card, cards.host_gib)


def show_progress(verdicts: Iterator[Feasibility], total: int) -> Iterator[Feasibility]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = [TextColumn("simulating layouts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(verdicts, total=total)


def report(
    cards: Cards, fits: Sequence[FeasibleLayout], misfits: Sequence[InfeasibleLayout], unknown: Sequence[str]
) -> Iterator[str]:
    """Lines for people."""
    yield f"{cards}: {len(fits)} layouts fit in {cards.card.usable_gib:.2f} GiB (simulated), best first"
    for number, fit in enumerate(fits, start=1):
        yield from _paragraph(number, fit)
    if misfits:
        yield "\ndo not fit:"
        for misfit in misfits:
            yield f"  {misfit.name}: {misfit.why}"
            if misfit.next_step:
                yield f"  next: {misfit.next_step}"
    if unknown:
        yield f"\nnot simulated in time (give more --seconds): {', '.join(unknown)}"


def _paragraph(number: int, fit: FeasibleLayout) -> Iterator[str]:
    parts = ", ".join(f"{name} {spent:.2f}" for name, spent in fit.breakdown.items())
    peaks = ", ".join(f"{rank}: {peak:.2f}" for rank, peak in fit.peaks_gib.items())
    yield f"\n{number}. {fit.name}: {fit.seconds_per_clip:.2f} s a clip, predicted ({parts})"
    if fit.least_seconds_per_clip < fit.seconds_per_clip:
        yield f"   {fit.least_seconds_per_clip:.2f} s where gathers of weights hide behind computing"
    yield f"   peak GiB by rank {peaks}; {fit.headroom_gib:.2f} to spare; {fit.host_gib:.1f} in host memory a rank"
    yield f"   in host memory of the machine {fit.machine_host_gib:.1f}"
    yield f"   most that an allocator holds {fit.reserved_gib:.2f}"
    if fit.retries:
        yield f"   fits with retries: its allocator gives cached memory back {fit.retries} times, which stops the card"
    if fit.longest_voice is None:
        yield "   longest voice not simulated in time (give more --seconds)"
    elif not fit.longest_voice.is_any:
        yield f"   longest voice {fit.longest_voice}"
    if fit.next_step:
        yield f"   next: {fit.next_step}"
    yield f"   cost in precision: {fit.quality}"
    yield f"   {fit.command}"


COMMAND = Command(
    name="fit",
    summary="Say how the model fits on given cards, best layout first.",
    add_options=add_options,
    run=run,
)
