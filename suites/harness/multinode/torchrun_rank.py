"""One rank that torchrun started: a worker of the harness, told what to do from here, its answers in a file."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from liveavatar_core.errors import BadInput, LiveAvatarError, OutOfMemory
from liveavatar_core.hardware.nvml import CardState, DriverState, read_driver
from suites.harness.cases.tiers import MIB, Case, Tier
from suites.harness.hardware import miniature, on_cards
from suites.harness.hardware.physical import matching, visible
from suites.harness.processes.child_link import ErrorReport
from suites.harness.processes.failures import kind_of, message_of
from suites.harness.records.record import write_atomically


class FileLink:
    """What a worker takes a ChildLink for. Commands: load, each clip, finish."""

    def __init__(self, payload: dict[str, Any], path: Path, environment: Mapping[str, str]) -> None:
        """`path`: takes the answers, anew after each, so that a rank that is killed leaves what it knew."""
        self.payload, self._path = payload, path
        self.rank, self.world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        self.rendezvous = "env://"
        self._commands = ["load"]
        self._told: dict[str, Any] = {"card": None, "replies": [], "event": {}, "error": None}
        self._write()

    def take_card(self, card: CardState, driver: str | None) -> None:
        """The card that this rank works on, and the version of its driver."""
        self.payload["uuids"] = {self.rank: card.uuid}
        self._told["card"] = {"name": card.name, "total_bytes": card.total_bytes, "driver": driver}

    def next_command(self) -> str | None:
        """The next one; None when there are no more."""
        return self._commands.pop(0) if self._commands else None

    def reply(self, values: dict[str, Any]) -> None:
        """The answer to loading says how many clips there will be."""
        self._told["replies"].append(values)
        self._commands += ["clip"] * values.get("clips", 0) + ["finish"] * ("clips" in values)
        self._write()

    def event(self, values: dict[str, Any]) -> None:
        """How far it is."""
        self._told["event"] = values
        self._write()

    def error(self, error: BaseException) -> None:
        """Why it ends."""
        report = ErrorReport.of(error)
        typed = report.typed
        self._told["error"] = {
            "kind": kind_of(report),
            "message": message_of(report),
            "next_step": typed.next_step if typed else "read the rank's output in the job's log",
            "core": isinstance(error, LiveAvatarError),
            "out_of_memory": asdict(error.shortage) if isinstance(error, OutOfMemory) else None,
        }
        self._write()

    def _write(self) -> None:
        write_atomically(self._path, json.dumps(self._told))


def run_rank(tier: Tier, case: Case, folder: Path, hardware: str, environment: Mapping[str, str]) -> None:
    """Do the share of the rank that torchrun's variables name; whatever ends it early stands in its file."""
    rank, local = int(environment["RANK"]), int(environment["LOCAL_RANK"])
    link = FileLink(_payload(tier, case, folder, hardware), folder / f"rank{rank}.json", environment)
    try:
        if hardware == "physical":
            driver = read_driver()
            card = _own_card(tier, driver, local)
            os.environ["CUDA_VISIBLE_DEVICES"] = card.uuid
            link.take_card(card, driver.version)
        target = on_cards.TARGET if hardware == "physical" else miniature.TARGET
        module, _, function = target.partition(":")
        getattr(importlib.import_module(module), function)(link)
    except BaseException as error:
        link.error(error)
        raise


def _payload(tier: Tier, case: Case, folder: Path, hardware: str) -> dict[str, Any]:
    real = hardware == "physical"
    capacity = None if real or case.miniature_capacity_mib is None else int(case.miniature_capacity_mib * MIB)
    return {
        "recipe": tier.recipe(case) if real else miniature.MiniatureMode().recipe(tier, case),
        "capacity_bytes": capacity,
        "backend": "nccl",
        "alone": True,
        "image": str(miniature.ASSETS / "head.png"),
        "audio": str(miniature.ASSETS / "voice.wav"),
        "prompt": miniature.PROMPT,
        "folder": str(folder),
        "video": str(folder / "video.mp4"),
    }


def _own_card(tier: Tier, driver: DriverState, local: int) -> CardState:
    cards = matching(driver, tier)
    if local >= len(cards):
        raise BadInput(
            f"rank {local} of this machine has no {tier.card_model.driver_name}; visible: {visible(driver)}",
            "ask for nodes with such cards, or give --hardware=miniature",
        )
    return cards[local]
