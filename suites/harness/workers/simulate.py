"""What a rank's process does in the simulated mode: execute one role at full size on fake tensors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from liveavatar_core.hardware.cards import find_card
from liveavatar_core.parallel.system import System
from liveavatar_core.simulation.card_memory import CardMemory
from liveavatar_core.simulation.cost.roofline import estimate_time
from liveavatar_core.simulation.estimate import SimulatedRank, simulate_rank
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.simulation.replay.repeater import Listener
from suites.harness.probes.observed_settings import SettingsObserver, proof_of
from suites.harness.probes.phase_peaks import phase_peaks
from suites.harness.processes.child_link import ChildLink

CLIP_PHASES = ("denoise", "decode")
"""What a clip's predicted seconds cover; load, encode and prefill happen once a run."""


def simulate(link: ChildLink) -> None:
    """Commands: `run`. Payload: recipe, card, ranks (the lowest rank of each role, one a process)."""
    recipe, card = link.payload["recipe"], find_card(link.payload["card"])
    rank = link.payload["ranks"][link.rank]
    for _ in link.commands():
        started = time.monotonic()
        proofs: list[SettingsObserver] = []
        capacity, trace = Capacity(card=card.usable_bytes), CardMemory(card.usable_bytes)
        result = simulate_rank(recipe, rank, capacity, observe=partial(observe, proofs), trace=trace)
        prediction = estimate_time(result.work, card, CLIP_PHASES)
        link.reply(
            {
                "memory": _readings(result, trace.reserved.peaks),
                "timeline": trace.timeline.columns(rank),
                "out_of_memory": _details(result),
                "clips": result.clips,
                "predicted_seconds": prediction.seconds,
                "communication_share": prediction.communication_share,
                "least_seconds": prediction.least_seconds,
                "least_communication_share": prediction.least_communication_share,
                "breakdown": asdict(prediction),
                "units": {"executed": result.units_executed, "repeated": result.units_repeated},
                "verdict_seconds": time.monotonic() - started,
                "torch": torch.__version__,
                **proof_of(next(iter(proofs), None)),
            }
        )


def observe(proofs: list[SettingsObserver], system: System, place_of: Callable[[Tensor], str]) -> Listener:
    """Have a proof hear of every call; repeated ones run no hook."""
    proofs.append(SettingsObserver(system, place_of, hooked=False))
    return proofs[0].see


def _readings(result: SimulatedRank, reserved: dict[str, int]) -> list[dict[str, Any]]:
    """What the tracker saw, and what the caching allocator would have kept reserved for it."""
    return [
        reading | ({"reserved_bytes": reserved[reading["phase"]]} if reading["phase"] in reserved else {})
        for reading in phase_peaks(result.rank, result.peaks)
    ]


def _details(result: SimulatedRank) -> dict[str, Any] | None:
    error = result.out_of_memory
    return asdict(error.shortage) if error else None
