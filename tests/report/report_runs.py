"""Runs to make pages of: two tiers, every kind of ending, hostile words wherever a record has words."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

from liveavatar_core.errors import GIB, MemoryShortage
from suites.harness.cases.tiers import Expectation
from suites.harness.pytest_plugin.options import Settings
from suites.harness.pytest_plugin.session import Result
from suites.harness.records.measurements import CardConditions, MemoryTimeline, ObservedSettings, PhaseMemory, Timing
from suites.harness.records.record import (
    DeclaredRecipe,
    Failure,
    MachineProfile,
    RunRecord,
)
from suites.harness.verdicts.judge import judge

LIMIT = int(22.15 * GIB)
HOSTILE = '"><script>window.owned = 1</script><img src=x onerror="window.owned = 1">\u202e\x1b[2J' + "x" * 200


OBSERVED = ObservedSettings(
    rank=0,
    transformer_forwards={"prefill": 1, "denoise": 16},
    parameter_bytes={"transformer": {"bfloat16 card": 32 * GIB}, "text_encoder": {"bfloat16 card": 11 * GIB}},
    kv_caches=("bfloat16 card",),
    latent_sizes=("72x48",),
    frame_sizes=("576x384",),
)
"""What the one rank that the declared settings take was seen to do."""


def settings(folder: Path, **changes) -> Settings:
    values = {"hardware": ("simulated",), "require_hardware": False, "tiers": (), "baseline_update": "no"}
    values |= {"baseline_compare": "fail", "baseline_reason": None, "history": None}
    values |= {"baseline_dir": folder / "baselines", "report_dir": folder / "report"}
    return Settings(**(values | changes))


def timeline(rank: int, *held: tuple[str, float, float]) -> MemoryTimeline:
    """Points: phase, GiB of parameters, GiB of gathered parameters."""
    return MemoryTimeline(
        rank=rank,
        phases=tuple(phase for phase, _, _ in held),
        starts=tuple(range(1, len(held) + 1)),
        bytes_by_category={
            "parameters": tuple(int(size * GIB) for _, size, _ in held),
            "unsharded_parameters": tuple(int(size * GIB) for _, _, size in held),
            "kv_cache": (0,) * len(held),
        },
    )


def reading(rank: int, phase: str, gib: float) -> PhaseMemory:
    return PhaseMemory(
        rank=rank,
        phase=phase,
        allocated_bytes=int(gib * GIB),
        reserved_bytes=None,
        device_used_bytes=None,
        by_category={"parameters": int(gib * GIB)},
        missing={"reserved_bytes": "no allocator", "device_used_bytes": "no card"},
    )


def declared(dtype: str) -> dict:
    return {"clip": {"infer_frames": 48}, "deployment": {"storage_dtype": dtype}}


def ran_out(**changes) -> RunRecord:
    """Four cards; the first ran out, the other three went alike."""
    details = MemoryShortage(
        rank=0,
        phase="encode",
        category="unsharded_parameters",
        requested=int(3.92 * GIB),
        free=int(0.64 * GIB),
        capacity=LIMIT,
        holders={"parameters": int(21.51 * GIB)},
    )
    record = RunRecord(
        tier="gpu4x24",
        case="published_sharded",
        recipe=DeclaredRecipe(name="published_sharded", hash="ba98c853", declared=declared("float32")),
        hardware="simulated",
        emulated=True,
        machine=MachineProfile(card="RTX 4090", cards=4, torch="2.13.0", allocator="tracker"),
        limit_bytes=LIMIT,
        outcome="oom",
        out_of_memory=details,
        ranks_out_of_memory=(0,),
        expected_phases={str(rank): ("load",) for rank in range(4)},
        memory=tuple(reading(rank, "load", 21.51) for rank in range(4)),
        timelines=(
            timeline(0, ("load", 10.0, 0.0), ("load", 21.51, 0.0), ("encode", 21.51, 0.4)),
            *(timeline(rank, ("load", 21.51, 0.0), ("encode", 21.51, 0.0)) for rank in (1, 2, 3)),
        ),
        commit="1f0c2ab",
        date=date(2026, 11, 20),
    )
    return replace(record, **changes)


def fitting(**changes) -> RunRecord:
    """The same cards, another layout: passes, without a timeline."""
    return ran_out(
        **{
            "case": "bf16_sharded",
            "recipe": DeclaredRecipe(name="bf16", hash="00000001", declared=declared("bfloat16")),
            "outcome": "pass",
            "out_of_memory": None,
            "ranks_out_of_memory": (),
            "expected_phases": {"0": ("load", "denoise"), "1": ("load", "denoise")},
            "memory": tuple(
                reading(rank, phase, 11 + at) for rank in (0, 1) for at, phase in enumerate(("load", "denoise"))
            ),
            "timelines": (),
            "timing": Timing(predicted_seconds_per_clip=19.77),
            "observed": (OBSERVED,),
            **changes,
        }
    )


def measured(*clips: float, **changes) -> RunRecord:
    """`fitting` on real cards."""
    timing = Timing(clip_seconds=clips, first_frame_seconds=3.0, comparable=True)
    machine = MachineProfile(card="NVIDIA GeForce RTX 4090", cards=4, driver="570.1", torch="2.13.0")
    return fitting(**({"hardware": "physical", "emulated": False, "timing": timing, "machine": machine} | changes))


def hostile() -> RunRecord:
    """Crashed, with markup, control characters and endless words in every text."""
    return ran_out(
        tier=HOSTILE,
        case=HOSTILE,
        recipe=DeclaredRecipe(name=HOSTILE, hash=HOSTILE, declared={HOSTILE: HOSTILE}),
        machine=MachineProfile(card=HOSTILE, cards=4, driver=HOSTILE),
        outcome="crash",
        out_of_memory=None,
        ranks_out_of_memory=(),
        failure=Failure(message=HOSTILE, rank=1, next_step=HOSTILE, detail=HOSTILE),
        memory=(replace(reading(0, "load", 1.0), by_category={HOSTILE: GIB}),),
        timelines=(),
        observed=(
            ObservedSettings(
                rank=0, transformer_forwards={HOSTILE: 1}, parameter_bytes={HOSTILE: {HOSTILE: 1}}, kv_caches=(HOSTILE,)
            ),
        ),
        card_conditions=CardConditions(slowed_by=(HOSTILE,)),
        quality={HOSTILE: 0.5},
        commit=HOSTILE,
        run=HOSTILE,
    )


def judged(record: RunRecord, options: Settings) -> Result:
    """With a judgement: what the record did is what was expected of it, a crash excepted."""
    short = record.out_of_memory
    expected = Expectation(
        outcome="oom" if short else "pass",
        phases=(short.phase,) if short else (),
        category=short.category if short else None,
        because="arithmetic",
    )
    return Result(record=record, judgement=judge(record, expected, options))
