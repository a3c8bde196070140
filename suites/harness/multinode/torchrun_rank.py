"""One rank that torchrun started: a worker of the harness, told what to do from here, its answers in a file."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from liveavatar_core.errors import BadData, BadInput
from liveavatar_core.hardware.nvml import CardState, DriverState, read_driver
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import Case, Tier
from suites.harness.hardware import miniature, on_cards
from suites.harness.hardware.clip_runs import clip_job
from suites.harness.hardware.physical import matching, visible
from suites.harness.messages import ClipJob, ClipTime, Loaded, RankReport
from suites.harness.multinode.rank_file import CardIdentity, RankFile
from suites.harness.processes.link import ErrorReport, Message, RankCommand

T = TypeVar("T")


class FileLink:
    """The Link of a rank that nobody commands: it loads, makes each clip and finishes; a file takes what it tells."""

    rendezvous = "env://"

    def __init__(self, given: ClipJob, path: Path, environment: Mapping[str, str]) -> None:
        """`path`: is written anew after each answer, so that a rank that is killed leaves what it knew."""
        self._given, self._path = given, path
        self.rank, self.world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        self._commands = [RankCommand(name="load")]
        self._told = RankFile()
        self._tell(self._told)

    def take_card(self, card: CardState, driver: str | None) -> None:
        """Work on `card`, with a driver of that version."""
        uuids = ("",) * self.rank + (card.uuid,)
        self._given = replace(self._given, card_uuids=uuids)
        identity = CardIdentity(name=card.name, total_bytes=card.total_bytes, driver=driver)
        self._tell(replace(self._told, card=identity))

    def job(self, kind: type[T]) -> T:
        """The job of every rank, as a `kind`. Raises BadData where it is something else."""
        if not isinstance(self._given, kind):
            raise BadData(f"the job is a {type(self._given).__name__}", f"ask for it, not for a {kind.__name__}")
        return self._given

    def next_command(self) -> RankCommand | None:
        """The next one; None when there are no more."""
        return self._commands.pop(0) if self._commands else None

    def commands(self) -> Iterator[RankCommand]:
        """Every command until there are no more."""
        return iter(self.next_command, None)

    def failing(self) -> None:
        """Outlast the agent's wish to end every rank as soon as one fails: this one ends by itself, or is killed."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def reply(self, message: Message) -> None:
        """Take an answer; that to loading says how many clips there will be."""
        told = replace(self._told, answered=self._told.answered + 1)
        if isinstance(message, Loaded):
            self._commands += [RankCommand(name="clip")] * message.clips + [RankCommand(name="finish")]
            told = replace(told, loaded=message)
        elif isinstance(message, ClipTime):
            told = replace(told, clips=(*told.clips, message))
        elif isinstance(message, RankReport):
            told = replace(told, last_report=message, finished=True)
        self._tell(told)

    def report(self, report: RankReport) -> None:
        """Take note of how far the rank is; what it said when it finished stands."""
        if not self._told.finished:
            self._tell(replace(self._told, last_report=report))

    def error(self, error: BaseException) -> None:
        """Take note of what ends the rank."""
        self._tell(replace(self._told, error=ErrorReport.of(error)))

    def _tell(self, told: RankFile) -> None:
        self._told = told
        told.write(self._path)


def plan_of(tier: Tier, case: Case, hardware: str, folder: Path) -> RunPlan:
    """The plan for all ranks together, as pytest would have it."""
    if hardware == "physical":
        return RunPlan.full_size(tier, case, "physical", folder)
    return miniature.MiniatureMode().plan(tier, case, folder)


def run_rank(plan: RunPlan, environment: Mapping[str, str]) -> None:
    """Do the share of the rank that torchrun's variables name; whatever ends it early stands in its file."""
    rank, local = int(environment["RANK"]), int(environment["LOCAL_RANK"])
    physical = plan.hardware == "physical"
    given = replace(clip_job(plan), group_seconds=on_cards.TIME_OUTS.group_seconds)
    given = replace(given, backend="nccl", capacity_bytes=None) if physical else given
    link = FileLink(given, plan.folder / f"rank{rank}.json", environment)
    try:
        if physical:
            driver = read_driver()
            card = _own_card(plan.tier, driver, local)
            os.environ["CUDA_VISIBLE_DEVICES"] = card.uuid
            os.environ.update(on_cards.nccl_environment(plan.folder, rank))
            link.take_card(card, driver.version)
        module, _, function = (on_cards.TARGET if physical else miniature.TARGET).partition(":")
        getattr(importlib.import_module(module), function)(link)
    except BaseException as error:
        link.error(error)
        raise


def _own_card(tier: Tier, driver: DriverState, local: int) -> CardState:
    cards = matching(driver, tier)
    if local >= len(cards):
        raise BadInput(
            f"rank {local} of this machine has no {tier.card_model.capacity_gib:g} GB card of the others' model;"
            f" visible: {visible(driver)}",
            "ask for nodes with such cards, or give --hardware=miniature",
        )
    return cards[local]
