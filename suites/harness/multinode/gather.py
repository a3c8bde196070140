"""The run record of ranks that worked apart, from the files that they left in a shared folder. Free of torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from liveavatar_core.errors import BadData, OutOfMemory
from suites.harness.cases.tiers import MIB, Case, Tier
from suites.harness.hardware import miniature
from suites.harness.hardware.on_cards import allocator_settings, circumstances
from suites.harness.processes.failures import GroupError, RankFailure, only_lost_a_peer
from suites.harness.records.build import (
    clip_timing,
    failure_of,
    film_quality,
    host_machine,
    knobs,
    phase_memory,
    provenance,
    timelines,
    torch_of,
)
from suites.harness.records.expected_phases import expected_phases
from suites.harness.records.record import DeclaredRecipe, MachineProfile, PhaseMemory, RunRecord

FINISHED = 3
"""Answers of a rank that came to its end: to loading, to a clip at least, to finishing."""
Told = dict[str, Any]
"""What one rank left."""


def gather(tier: Tier, case: Case, folder: Path, hardware: str, nodes: int) -> RunRecord:
    """The record of a run over `nodes` machines. A rank that left nothing, or did not finish, is an outcome."""
    told = [_read(folder / f"rank{rank}.json") for rank in range(tier.cards)]
    real = hardware == "physical"
    recipe = tier.recipe(case) if real else miniature.MiniatureMode().recipe(tier, case)
    last = [each["replies"][-1] if _finished(each) else each["event"] for each in told]
    limit = tier.limit_bytes if real else int((case.miniature_capacity_mib or 0) * MIB) or None
    readings = [reading for each in last for reading in each.get("memory", ())]
    failed = _failed(told, folder)
    video = {"video": str(folder / "video.mp4"), "recipe": recipe}
    fields = failure_of(failed) if failed else _passed(told, real) | film_quality(video, last)
    return RunRecord(
        tier=tier.name,
        case=case.name,
        recipe=DeclaredRecipe.of(recipe),
        hardware="physical" if real else "miniature",
        emulated=not real,
        machine=_machine(tier, told, last, nodes),
        limit_bytes=limit,
        expected_phases=expected_phases(recipe.deployment),
        memory=tuple(PhaseMemory(**each) for each in readings) if real else phase_memory(readings),
        timelines=timelines(last),
        knobs=knobs(last) | (circumstances(last) if real else {}),
        **fields,
        **provenance(),
    )


def _read(path: Path) -> Told:
    """What a rank left; of one that left nothing, that."""
    empty: Told = {"card": None, "replies": [], "event": {}, "error": None}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return empty
    except (OSError, ValueError) as error:
        raise BadData(f"{path}: {error}", "run the job again") from error


def _finished(told: Told) -> bool:
    return told["error"] is None and len(told["replies"]) >= FINISHED


def _failed(told: list[Told], folder: Path) -> GroupError | None:
    """The cause: errors of the core first, by rank; ranks that only lost a peer, or were ended, where no other is."""
    failures = [_explain(rank, each, folder) for rank, each in enumerate(told) if not _finished(each)]
    if not failures:
        return None
    spoke = [each for each in failures if told[each.rank]["error"]]
    causes = [each for each in spoke if not only_lost_a_peer(each)] or spoke or failures
    causes.sort(key=lambda each: not told[each.rank]["error"] or not told[each.rank]["error"]["core"])
    error = told[causes[0].rank]["error"]
    return GroupError(causes, error["next_step"] if error else "read the job's log")


def _explain(rank: int, told: Told, folder: Path) -> RankFailure:
    error, phase = told["error"], str(told["event"].get("phase", ""))
    if error is None:
        words = f"ended without finishing; it had answered {len(told['replies'])} commands, see {folder}"
        return RankFailure(kind="crash", rank=rank, phase=phase, message=words)
    short = OutOfMemory(**error["out_of_memory"]) if error["out_of_memory"] else None
    return RankFailure(kind=error["kind"], rank=rank, phase=phase, message=error["message"], error=short)


def _passed(told: list[Told], comparable: bool) -> dict[str, Any]:
    clips = zip(*(each["replies"][1:-1] for each in told), strict=True)
    return {"outcome": "pass", "timing": clip_timing([list(clip) for clip in clips], comparable=comparable)}


def _machine(tier: Tier, told: list[Told], last: list[Told], nodes: int) -> MachineProfile:
    """That of the first rank; the network between machines is part of its identity."""
    card = told[0]["card"] or {}
    between = f"{nodes} nodes" if nodes > 1 else None
    link = tier.card_model.link if card else "shm"
    return host_machine(
        card.get("name") or "miniature",
        tier.cards,
        torch_of(last),
        allocator=allocator_settings() if card else "tracker",
        card_memory_bytes=card.get("total_bytes"),
        driver=card.get("driver"),
        cuda=next((each["cuda"] for each in last if "cuda" in each), None),
        imitated_card=None if card else tier.card,
        imitated_cards=None if card else tier.cards,
        link=", ".join(filter(None, (link, between))),
        cpu_kernels=next((each["cpu_kernels"] for each in last if "cpu_kernels" in each), None),
        attention_backend="scaled_dot_product_attention" if card else None,
    )
