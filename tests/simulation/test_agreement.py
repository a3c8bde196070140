"""What is simulated is what happens: fake and real runs of one recipe hold the same bytes, to the byte.

Of each role the first rank is compared and the last, whose shares differ where they do not divide; fuzzing compares
every rank of the layouts that it draws.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from liveavatar_core.config import Recipe
from liveavatar_core.media import read_audio, read_image
from liveavatar_core.parallel.ranks import distinct_ranks
from liveavatar_core.pipeline import Inputs
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.fake_world import CPU
from liveavatar_core.simulation.memory_account import Capacity
from suites.harness.cases.tiers import read_tiers
from suites.harness.cases.workloads import HEAD, PROMPT, VOICE
from suites.harness.hardware.miniature import MiniatureMode

PLENTY_MIB = 10_000.0

CASES = {"published_sharded": "gpu5x24", "published_replicated": "gpu4x24", "single": "gpu1x80"}


def given_inputs(recipe: Recipe) -> Inputs:
    """What the miniature mode gives its ranks."""
    samples = recipe.clip.num_clip * recipe.clip.infer_frames * 16_000 // 25
    return Inputs(
        image=read_image(HEAD),
        waveform=read_audio(VOICE)[:samples],
        prompt=PROMPT,
    )


@pytest.mark.parametrize("name", CASES)
def test_each_role_phase_and_category_agrees(name: str, tmp_path: Path) -> None:
    tier = read_tiers()[CASES[name]]
    case = replace(tier.case(name), miniature_capacity_mib=PLENTY_MIB)
    record = MiniatureMode().run(tier, case, tmp_path)
    assert record.outcome == "pass", record.failure
    recipe = MiniatureMode().plan(tier, case, tmp_path).recipe
    really = {(reading.rank, reading.phase): reading for reading in record.memory}
    for ranks in distinct_ranks(recipe.deployment).values():
        for rank in {ranks[0], ranks[-1]}:
            peaks = simulate_rank(recipe, rank, Capacity(), given_inputs(recipe), card=CPU).peaks
            assert peaks.keys() == {phase for number, phase in really if number == rank}
            for phase, peak in peaks.items():
                assert peak.by_category == really[rank, phase].by_category, (rank, phase)
                assert peak.allocated == really[rank, phase].allocated_bytes, (rank, phase)
        fullest = {rank: max(really[at].allocated_bytes for at in really if at[0] == rank) for rank in ranks}
        assert fullest[ranks[0]] == max(fullest.values()), "the one that verdicts simulate"
