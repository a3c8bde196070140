"""How long a voice a layout holds: found by simulating it, to a clip, wherever it is not any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from liveavatar_core.cli.plan.layouts import FeasibleLayout, judge, longest_voice
from liveavatar_core.config import Recipe
from liveavatar_core.hardware.cards import Card, find_card
from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.simulation.voice_limit import VoiceLimit, voice_limit, with_voice
from liveavatar_core.workload import MANY_CLIPS


@pytest.fixture
def card() -> Card:
    """One that leaves a miniature 100 MiB."""
    card = find_card("RTX 4090")
    overhead = card.visible_gib - card.usable_gib
    return replace(card, visible_gib=overhead + 100 / 1024)


def recipe(window_seconds: int) -> Recipe:
    small = miniature(named_recipe("single", 1))
    small = replace(small, clip=replace(small.clip, infer_frames=12, sample_steps=1))
    return replace(small, deployment=replace(small.deployment, audio_window_seconds=window_seconds))


@pytest.mark.parametrize("longest", [0, 1, 3, 417, MANY_CLIPS - 1, MANY_CLIPS])
def test_halving_finds_the_last_clip_that_fits(longest: int):
    tried: list[int] = []

    def why_not(asked: Recipe) -> str | None:
        tried.append(asked.clip.num_clip)
        return None if asked.clip.num_clip <= longest else f"{asked.clip.num_clip} are too many"

    found = voice_limit(named_recipe("single", 1), why_not)
    assert (found.clips, found.seconds) == (longest, longest * 48 / 25)
    assert found.is_any == (longest == MANY_CLIPS)
    assert found.why == ("" if found.is_any else f"{longest + 1} are too many")
    assert len(tried) <= 11


def test_the_voice_is_as_long_as_the_video():
    asked = with_voice(replace(recipe(60), workload=replace(recipe(60).workload, voice_seconds=17.72)), 20)
    assert asked.workload.voice_length(asked.clip.num_clip * 12) == 20 * 12 * 640


def fits(recipe: Recipe, card: Card, clips: int) -> bool:
    capacity = Capacity(card=card.usable_bytes_in(recipe.deployment))
    return simulate_rank(with_voice(recipe, clips), 0, capacity).out_of_memory is None


def test_a_voice_that_is_encoded_at_once_ends_where_the_card_does(card: Card):
    found = longest_voice(recipe(0), card)
    assert 3 < found.clips < MANY_CLIPS
    assert "encode: " in found.why
    assert fits(recipe(0), card, found.clips)
    assert not fits(recipe(0), card, found.clips + 1)


def test_in_windows_it_does_not_end(card: Card):
    assert longest_voice(recipe(20), card) == VoiceLimit(clips=MANY_CLIPS, seconds=MANY_CLIPS * 12 / 25)


def test_a_voice_ends_where_host_memory_does(card: Card):
    """Features of the whole voice stand there."""
    needed = judge(recipe(20), card, host_gib=1.0)
    assert isinstance(needed, FeasibleLayout)
    found = longest_voice(recipe(20), card, host_gib=0.02)
    assert 3 < found.clips < MANY_CLIPS
    assert found.why.startswith("host-oom: 1 ranks hold 0.0 GiB of 0.0")
