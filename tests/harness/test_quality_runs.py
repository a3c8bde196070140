"""Quality of videos that the miniature mode really makes: in their records, against a run at full precision."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fault_targets import smallest

from suites.harness.cases.tiers import Case, Expectation, Tier
from suites.harness.hardware.miniature import MiniatureMode

EXACT = {"storage_dtype": "float32", "compute_dtype": "float32"}
TIER = Tier(name="quality", title="one process", cards=1, card="A100 80GB SXM", cases=())
CASE = Case(name="exact", recipe="single", deployment=EXACT, expect=Expectation(outcome="pass", because="a test"))
NEEDS_MORE_CLIPS = {
    "clip_jump_ratio",
    "sharpness_loss_share_per_clip",
    "colour_drift_levels_per_clip",
    "identity_drift_per_clip",
}


def test_full_precision_is_its_own_reference(tmp_path):
    record = MiniatureMode(shrink=smallest).run(TIER, replace(CASE, reference_clip={}), tmp_path)
    assert record.outcome == "pass", record.failure
    assert (record.quality["latent_cosine"], record.quality["psnr_db"]) == (pytest.approx(1), 100)
    assert (record.quality["nan_blocks_count"], record.quality["picture_beyond_sound_ms"]) == (0, 0)
    assert record.quality_missing.keys() >= NEEDS_MORE_CLIPS
    assert record.to_json() == type(record).from_json(record.to_json()).to_json()


def test_another_video_is_unlike_the_reference(tmp_path):
    case = replace(CASE, miniature_clip={"base_seed": 7}, reference_clip={"base_seed": 420})
    record = MiniatureMode(shrink=smallest).run(TIER, case, tmp_path)
    assert record.recipe.declared["clip"]["base_seed"] == 7
    assert record.quality["latent_cosine"] < 0.5
    assert record.quality["psnr_db"] < 40


def test_the_voice_lasts_as_long_as_the_clips_and_videos_of_several_have_drift(tmp_path):
    case = replace(CASE, miniature_clip={"num_clip": 16})  # 7.7 s; the recording lasts for 6.9
    record = MiniatureMode(shrink=smallest).run(TIER, case, tmp_path)
    assert record.outcome == "pass", record.failure
    assert len(record.timing.clip_seconds) == 16
    assert record.quality.keys() >= NEEDS_MORE_CLIPS
    assert "latent_cosine" not in record.quality.keys() | record.quality_missing.keys()


def test_latents_that_are_no_numbers_are_counted():
    import torch

    from suites.harness.workers.clips import _Output

    output = _Output(SimpleNamespace(), None)
    for value in (1.0, np.nan, np.inf):
        output.see(SimpleNamespace(latents_BCTHW=torch.tensor([0.0, value])))
    assert output.close() == 2
