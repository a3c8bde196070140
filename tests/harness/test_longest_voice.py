"""A simulated run that passes says how long the voice may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from liveavatar_core.recipes import TINY
from suites.harness.cases.tiers import Tier, read_tiers
from suites.harness.hardware.simulated import SimulatedMode
from suites.harness.records.record import RunRecord

LAB = """
[lab1x24]
title = "one card"
cards = 1
card = "RTX 4090"
host_gib = {host_gib}

[lab1x24.cases.tiny]
recipe = "single"
clip = {{ size = "64*64", infer_frames = 12, sample_steps = 1 }}
expect = {{ outcome = "pass", because = "it is tiny" }}
"""


class TinyTier(Tier):
    """A tier whose recipes have the tiny model."""

    def layout(self, case):
        """The recipe of `case` over the tiny model."""
        return replace(super().layout(case), model=TINY)


def ran(folder: Path, host_gib: float) -> RunRecord:
    file = folder / "lab.toml"
    file.write_text(LAB.format(host_gib=host_gib), encoding="utf-8")
    tier = TinyTier(**vars(read_tiers(file)["lab1x24"]))
    return SimulatedMode().run(tier, tier.case("tiny"), folder)


def test_the_record_says_the_longest_voice_where_host_memory_ends(tmp_path: Path):
    record = RunRecord.from_json(ran(tmp_path, 0.02).to_json())
    assert record.outcome == "pass"
    assert record.longest_voice is not None
    assert 3 < record.longest_voice.clips < 1000
    assert "1 ranks hold" in record.longest_voice.why


def test_and_that_any_does_where_it_does_not(tmp_path: Path):
    record = ran(tmp_path, 8)
    assert record.longest_voice is not None
    assert record.longest_voice.is_any
