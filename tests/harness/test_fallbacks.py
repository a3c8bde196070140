"""A run whose ranks silently fell back to fewer pixels, or to another kernel of attention, is no pass.

Real processes of the miniature mode: each makes a fine video, and says nothing of what it did.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fallback_targets import FALLBACK
from fault_targets import WIDE, smallest

from liveavatar_core.config import Recipe
from suites.harness.cases.tiers import Case, Expectation, Tier
from suites.harness.hardware.miniature import MiniatureMode
from suites.harness.records.measurements import ObservedSettings
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.applied_settings import unapplied
from suites.harness.verdicts.verdict import Verdict

PASS = Expectation(outcome="pass", because="a model of this size fits anywhere")


def small(recipe: Recipe) -> Recipe:
    """With most parameters in the blocks, as in the published model; sides that can be halved, as 64 is the least."""
    made = smallest(recipe)
    return replace(made, model=WIDE, clip=replace(made.clip, size="128*128"))


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, fallback: str, *, cards: int = 1) -> RunRecord:
    monkeypatch.setenv(FALLBACK, fallback)
    recipe = "single" if cards == 1 else "bf16_sharded"
    case = Case(name="case", recipe=recipe, expect=PASS, miniature_capacity_mib=64)
    tier = Tier(name="tier", title="cards", cards=cards, card="RTX 4090", cases=(case,))
    record = MiniatureMode(target="fallback_targets:run", shrink=small).run(tier, case, folder)
    assert record.outcome == "pass", record.failure
    return record


@pytest.mark.parametrize(
    ("fallback", "shown"),
    [
        ("written-out", "attention by softmax against flash"),
        ("chosen-by-torch", "attention by flash, softmax against flash"),
        ("disguised", "flash attention 18 times against 30 or more, 5 a block of the model"),
        ("smaller", "latents of 8x8 against 16x16 (size 128*128)"),
        ("smaller-frames", "frames of 64x64 against 128x128 (size 128*128)"),
    ],
)
def test_what_a_rank_fell_back_to_is_a_verdict_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallback: str, shown: str
):
    found = unapplied(run(tmp_path, monkeypatch, f"{fallback} 0"))
    assert {each.verdict for each in found} == {Verdict.SETTING_NOT_APPLIED}
    assert any(f"rank 0: {shown}" in each.what for each in found), found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """Two ranks, the second of which writes its attention out."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return run(tmp_path_factory.mktemp("pair"), monkeypatch, "written-out 1", cards=2)


def test_one_rank_of_several_is_seen(pair: RunRecord):
    assert {each.what.split(": ")[1] for each in unapplied(pair)} == {"rank 1"}


def on_cards(record: RunRecord, backend: str, *seen: dict[str, int]) -> RunRecord:
    """As if that had been cards, which declare a backend, and ranks had been seen to do this."""
    observed = tuple(
        replace(each, attention_kernels=kernels) for each, kernels in zip(record.observed, seen, strict=True)
    )
    machine = replace(record.machine, attention_backend=backend)
    return replace(record, hardware="physical", machine=machine, observed=observed)


@pytest.mark.parametrize(
    ("declared", "ran", "differ"),
    [("cudnn", "cudnn", False), ("cudnn", "flash", True), ("flash", "efficient", True), ("flash", "flash", False)],
)
def test_a_card_ran_the_backend_that_its_profile_names(pair: RunRecord, declared: str, ran: str, differ: bool):
    found = unapplied(on_cards(pair, declared, {ran: 31}, {ran: 31}))
    assert [f"attention by {ran} against {declared}" in each.what for each in found] == [True, False] * 2 * differ


def test_a_simulation_is_not_asked_for_kernels_and_for_nothing_less(pair: RunRecord):
    """It computes nothing; sizes it has."""
    silent: tuple[ObservedSettings, ...] = tuple(replace(each, attention_kernels={}) for each in pair.observed)
    simulated = replace(pair, hardware="simulated", observed=silent)
    assert unapplied(simulated) == []
    [found] = unapplied(replace(simulated, observed=(replace(silent[0], frame_sizes=()), silent[1])))
    assert "rank 0: frames of nothing against 128x128" in found.what
