"""`fit`: what is tried, what is said of it, and that the commands it prints declare what was simulated."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

import pytest

from liveavatar_core.cli import fit, generate
from liveavatar_core.cli import main as cli
from liveavatar_core.cli.plan.layouts import (
    FeasibleLayout,
    InfeasibleLayout,
    candidates,
    command_of,
    judge,
    parse_cards,
    quality_of,
)
from liveavatar_core.config import ClipSpec
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadInput
from liveavatar_core.recipes import miniature

CLIP = ClipSpec(size="688*368")


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [("4x24", 4, "RTX 4090"), ("RTX 4090", 1, "RTX 4090"), ('2x"L40S"', 2, "L40S"), ("1 x 80", 1, "A100 80GB PCIe")],
)
def test_cards_are_named_or_sized(text: str, count: int, name: str) -> None:
    cards = parse_cards(text)
    assert (cards.count, cards.card.name) == (count, name)


@pytest.mark.parametrize("text", ["", "0x24", "4x23", "2xRTX 9999", "999x24"])
def test_unknown_cards_are_refused(text: str, capsys) -> None:
    with pytest.raises(BadInput):
        parse_cards(text)
    assert cli.main(["fit", "--cards", text or " "]) == 2
    assert "next: " in capsys.readouterr().err


@pytest.mark.parametrize("text", ["RTX 3090", "RTX 4090", "L40S", "2x24", "3x24", "4x24", "5x24", "8x80"])
def test_every_layout_takes_exactly_the_cards(text: str) -> None:
    cards = parse_cards(text)
    tried = candidates(cards, CLIP)
    assert len(tried) >= 5
    assert {recipe.deployment.num_cards for recipe in tried} == {cards.count}
    assert len({recipe.name for recipe in tried}) == len({recipe.hash for recipe in tried}) == len(tried)


def test_cards_that_cannot_multiply_float8_get_integers() -> None:
    weights = [recipe.deployment for recipe in candidates(parse_cards("RTX 3090"), CLIP)]
    assert not any(deployment.fp8 for deployment in weights)
    assert any(deployment.int8 for deployment in weights)


@pytest.mark.parametrize("text", ["RTX 4090", "4x24", "5x24"])
def test_the_printed_command_declares_what_was_simulated(text: str) -> None:
    for recipe in candidates(parse_cards(text), CLIP):
        words = shlex.split(command_of(recipe))
        options = cli.make_parser().parse_args(words[words.index("liveavatar_core") + 1 :])
        clip = ClipSpec(**generate.read_fields(options, ClipSpec, without=("quirks",)))
        assert clip == recipe.clip
        assert Deployment(**generate.read_fields(options, Deployment)) == recipe.deployment


def test_a_layout_fits_or_says_who_ran_out() -> None:
    cards = parse_cards("RTX 4090")
    recipe = miniature(candidates(cards, CLIP)[0])
    found = judge(recipe, cards.card)
    assert isinstance(found, FeasibleLayout)
    assert 0 < found.peaks_gib["0"] < 1
    assert found.headroom_gib == pytest.approx(cards.card.usable_gib - found.peaks_gib["0"], abs=0.01)
    assert found.breakdown.keys() == {"compute", "memory", "communication", "host"}
    short = judge(recipe, replace(cards.card, visible_gib=1.501))
    assert isinstance(short, InfeasibleLayout)
    assert re.match(r"rank 0, (load|encode): .* asked for parameters", short.why), (
        "by its own weights, wherever they come first"
    )


def test_rounding_is_said() -> None:
    assert quality_of(Deployment()) == "none"
    assert "fp8_kv_cache" in quality_of(Deployment(fp8_kv_cache=True))


def test_best_comes_first_and_the_deadline_is_kept(monkeypatch, capsys) -> None:
    """The order is that of predicted seconds; what was not simulated in time is named."""
    seconds = {"bf16": 9.0, "bf16, parts in turn": 3.0}

    def verdicts(pool, recipes, cards, deadline):
        for name, spent in seconds.items():
            yield FeasibleLayout(
                name=name,
                command="",
                quality="none",
                peaks_gib={"0": 1.0},
                headroom_gib=1.0,
                reserved_gib=2.0,
                retries=0,
                host_gib=0.0,
                machine_host_gib=0.0,
                seconds_per_clip=spent,
                least_seconds_per_clip=spent,
                breakdown={},
            )

    monkeypatch.setattr(fit, "judged", verdicts)
    monkeypatch.setattr(fit, "longest_voices", lambda pool, recipes, cards, deadline: [])
    assert cli.main(["fit", "--cards", "RTX 4090", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [found["name"] for found in document["fits"]] == ["bf16, parts in turn", "bf16"]
    assert len(document["not_simulated"]) == 6
