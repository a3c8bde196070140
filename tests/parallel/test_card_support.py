"""What a card cannot compute is refused before anything is loaded, and told as unsupported."""

from __future__ import annotations

import pytest
import torch
from deployments import small
from stand_in_card import CARD

from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.hardware.cards import find_card
from liveavatar_core.parallel import system
from liveavatar_core.parallel.card_support import check_card, check_described
from liveavatar_core.parallel.devices import Memory
from liveavatar_core.parallel.world import join_world
from suites.harness.processes.failures import kind_of
from suites.harness.processes.link import ErrorReport

A100, L4, H200 = (8, 0), (8, 9), (9, 0)
IN_FLOAT32 = Deployment(fp8=True, storage_dtype="float32", compute_dtype="float32")


@pytest.mark.parametrize(
    ("deployment", "capability", "words"),
    [
        (Deployment(fp8=True), A100, "multiplying float8 takes 8.9"),
        (IN_FLOAT32, H200, "fp8 with compute_dtype float32"),
        (Deployment(), (7, 5), "bfloat16 takes 8.0"),
        (Deployment(attention="flash3"), L4, "made for Hopper"),
        (Deployment(attention="flash3"), H200, "no module flash_attn_interface"),
    ],
)
def test_a_card_that_lacks_it_is_refused_with_a_next_step(deployment, capability, words):
    with pytest.raises(InvalidRecipe, match=words) as caught:
        check_card(deployment, capability)
    assert caught.value.next_step
    assert kind_of(ErrorReport.of(caught.value)) == "unsupported"


@pytest.mark.parametrize(
    ("deployment", "capability"),
    [
        (Deployment(fp8=True), L4),
        (Deployment(fp8=True), H200),
        (Deployment(fp8=True, fp8_multiply=False), A100),
        (Deployment(int8=True), A100),
        (Deployment(fp8_kv_cache=True), A100),
    ],
)
def test_a_card_that_has_it_is_not(deployment, capability):
    check_card(deployment, capability)


def test_data_sheets_refuse_the_same_before_a_process_starts(tmp_path, monkeypatch):
    flash3 = Deployment(attention="flash3")
    for card, words in (("L4", "made for Hopper"), ("H200", "no module flash_attn_interface")):
        with pytest.raises(InvalidRecipe, match=words):
            check_described(flash3, find_card(card))
    (tmp_path / "flash_attn_interface.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    check_described(flash3, find_card("H200"))
    check_card(flash3, H200)


def test_nothing_is_loaded_for_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: A100)
    monkeypatch.setattr(system, "load_parts", lambda *_: pytest.fail("it was loaded"))
    recipe = small(Deployment(fp8=True))
    with pytest.raises(InvalidRecipe, match="multiplying float8"):
        system.load_system(recipe, join_world(recipe.deployment, Memory(card=CARD)), {})
