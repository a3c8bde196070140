"""What is simulated is what happens: fake and real runs of one recipe hold the same bytes, to the byte."""

from dataclasses import replace
from pathlib import Path

import pytest

from liveavatar_core.config import Recipe
from liveavatar_core.media import read_audio, read_image
from liveavatar_core.pipeline import Inputs
from liveavatar_core.recipes import miniature
from liveavatar_core.simulation.ledger import Capacity
from liveavatar_core.simulation.run import simulate_rank
from suites.harness.hardware.miniature import ASSETS, PROMPT, Mode
from suites.harness.tiers import read_tiers

PLENTY_MIB = 10_000.0

CASES = {"published_sharded": "gpu5x24", "published_replicated": "gpu4x24", "single": "gpu1x80"}


def given_inputs(recipe: Recipe) -> Inputs:
    """What the miniature mode gives its ranks."""
    samples = recipe.clip.num_clip * recipe.clip.infer_frames * 16_000 // 25
    return Inputs(
        image=read_image(ASSETS / "portrait.png"),
        waveform=read_audio(ASSETS / "voice.wav")[:samples],
        prompt=PROMPT,
    )


@pytest.mark.parametrize("name", CASES)
def test_each_rank_phase_and_category_agree(name: str, tmp_path: Path) -> None:
    tier = read_tiers()[CASES[name]]
    case = replace(tier.case(name), miniature_capacity_mib=PLENTY_MIB)
    record = Mode().run(tier, case, tmp_path)
    assert record.outcome == "pass", record.failure
    recipe = miniature(tier.recipe(case))
    really = {(reading.rank, reading.phase): reading for reading in record.memory}
    for rank in range(tier.cards):
        peaks = simulate_rank(recipe, rank, Capacity(), given_inputs(recipe)).peaks
        assert peaks.keys() == {phase for number, phase in really if number == rank}
        for phase, peak in peaks.items():
            assert peak.by_category == really[rank, phase].by_category, (rank, phase)
            assert peak.allocated == really[rank, phase].allocated_bytes, (rank, phase)
