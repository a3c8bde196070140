"""A run proves that what its recipe asks for really acted."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_targets import smallest

from suites.harness.hardware.miniature import Mode
from suites.harness.tiers import Case, Expectation, Tier

PASS = Expectation(outcome="pass", because="a model of this size fits anywhere")


def proven(folder: Path, recipe: str, cards: int, **deployment) -> tuple[dict, ...]:
    """What each rank proved, and the sum of host memory that it was seen to take."""
    case = Case(name="case", recipe=recipe, deployment=deployment, expect=PASS, miniature_capacity_mib=64)
    tier = Tier(name="tier", title="cards", cards=cards, card="RTX 4090", cases=(case,))
    record = Mode(shrink=smallest).run(tier, case, folder)
    assert record.outcome == "pass", record.failure
    assert all(each.host_bytes is not None for each in record.memory)
    return tuple(record.knobs["proven_by_rank"][str(rank)] for rank in range(cards))


def test_shards_types_places_and_forwards_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    sharded = proven(tmp_path / "sharded", "published_sharded", 2)
    [whole] = proven(tmp_path / "whole", "single", 1)
    for rank in sharded:
        assert rank["kv_caches"] == ["bfloat16 host"]
        assert rank["transformer_forwards"]["denoise"] >= 1
        assert rank["transformer_forwards"] == sharded[0]["transformer_forwards"]
    assert whole["kv_caches"] == ["bfloat16 card"]
    kinds = {kind for part in sharded[0]["parameter_bytes"].values() for kind in part}
    assert "float32 card" in kinds
    held = sum(rank["parameter_bytes"]["text_encoder"]["float32 card"] for rank in sharded)
    assert held >= 2 * sum(whole["parameter_bytes"]["text_encoder"].values())  # float32 against bfloat16, no copy twice
    assert held < 2.2 * sum(whole["parameter_bytes"]["text_encoder"].values())
