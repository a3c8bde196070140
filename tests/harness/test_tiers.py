"""Tiers and cards are data, read strictly."""

import pytest

from liveavatar_core.errors import BadData, BadInput, LiveAvatarError
from liveavatar_core.hardware import cards
from liveavatar_core.hardware.cards import CARDS_FILE, find_card, find_card_by_driver_name, read_cards
from liveavatar_core.workload import Workload
from suites.harness.cases.tiers import read_tiers

PUBLISHED_RUNS = {
    "gpu4x24": ("published_sharded", "published_replicated"),
    "gpu5x24": ("published_sharded", "published_replicated"),
    "gpu1x80": ("single",),
    "gpu5x80": ("timestep_pipeline",),
}
LAB = """
[lab2x48]
title = "two 48 GB cards"
cards = 2
card = "L40S"

[lab2x48.cases.sharded]
recipe = "published_sharded"
deployment = { storage_dtype = "bfloat16" }
clip = { num_clip = 3 }
expect = { outcome = "pass", because = "43 GiB over two cards" }
"""


def read_lab(tmp_path, text):
    path = tmp_path / "lab.toml"
    path.write_text(text, encoding="utf-8")
    return read_tiers(path)


def test_every_tier_of_the_suite_has_recipes_for_its_cards():
    tiers = read_tiers()
    assert {"gpu4x24", "gpu5x24", "gpu1x80"} <= set(tiers)
    for tier in tiers.values():
        assert all(tier.recipe(case).deployment.num_cards == tier.cards for case in tier.cases)


def test_what_was_published_of_24_gb_cards_is_what_is_expected():
    tiers = read_tiers()
    published = ("published_sharded", "published_replicated", "single")
    outcomes = {(t.name, c.name): c.expect.outcome for t in tiers.values() for c in t.cases if c.name in published}
    assert outcomes == {
        ("gpu4x24", "published_sharded"): "oom",
        ("gpu4x24", "published_replicated"): "oom",
        ("gpu5x24", "published_sharded"): "pass",
        ("gpu5x24", "published_replicated"): "oom",
        ("gpu1x80", "single"): "pass",
        ("gpu1x48", "single"): "oom",
        ("gpu1x24", "single"): "oom",
    }
    assert tiers["gpu4x24"].limit_bytes == int(22.15 * 1024**3)


def test_no_portrait_is_worse_than_the_published_one_without_a_case_of_its_own():
    for tier in read_tiers().values():
        worst = {case.recipe for case in tier.cases if case.portrait is None}
        for case in tier.cases:
            area = tier.layout(case).clip.max_area
            most = Workload.largest(area).tokens_per_frame(area)
            made = tier.recipe(case).workload.tokens_per_frame(area)
            assert made == most or case.recipe in worst, f"{tier.name}.{case.name}: {made} tokens of {most}"


def test_cases_that_stand_for_published_runs_have_the_published_inputs():
    tiers = read_tiers()
    cases = {(tier.name, case.name): case for tier in tiers.values() for case in tier.cases}
    for tier, names in PUBLISHED_RUNS.items():
        for name in names:
            case = cases[tier, name]
            assert (case.portrait, case.voice_seconds) == ("720x400", 17.72), f"{tier}.{name}"


def test_a_lab_adds_a_tier_and_changes_a_recipe_without_code(tmp_path):
    tier = read_lab(tmp_path, LAB)["lab2x48"]
    recipe = tier.recipe(tier.case("sharded"))
    assert tier.added
    assert (recipe.deployment.storage_dtype, recipe.deployment.shard, recipe.clip.num_clip) == (
        "bfloat16",
        "per_parameter",
        3,
    )


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("cards = 2", "cards = 2\ncolour = 1", "lab2x48: unknown key 'colour'"),
        ("cards = 2", 'cards = "2"', "lab2x48.cards"),
        ("cards = 2", "cards = true", "lab2x48.cards"),
        ('"published_sharded"', '"published_sharded"\nportrait = "7x4"', "portrait '7x4' is not WIDTHxHEIGHT"),
        ("cards = 2", "cards = 0", "0 cards"),
        ('"L40S"', '"L40"', "no card 'L40'"),
        ('"published_sharded"', '"published_sharked"', "no recipe 'published_sharked'"),
        ('"pass"', '"fine"', "expect.outcome"),
        ('"pass"', '"oom"', "phases and category"),
        ('"pass"', '"oom", phases = ["nap"], category = "kv_cache"', "phase 'nap'"),
        ('"pass"', '"oom", phases = ["load"], category = "nap"', "category 'nap'"),
        ('storage_dtype = "bfloat16"', "num_gpus_dit = 3, ulysses_size = 3", "takes 3 cards, the tier has 2"),
        ("num_clip = 3", "num_clips = 3", "unknown key 'num_clips'"),
        ("num_clip = 3", "num_clip = 0", "num_clip 0"),
        ('"bfloat16"', '"float16"', "storage_dtype"),
        ('recipe = "published_sharded"', 'recipe = "single"', "1 card"),
        ('title = "two 48 GB cards"\n', "", "'title' is missing"),
        ("[lab2x48.cases.sharded]", '[lab2x48.cases."../x"]', "name '../x'"),
        ("lab2x48", "gpu4x24", "is there already"),
        ("lab2x48", '"gpu 4 or x"', "name 'gpu 4 or x'"),
        ("[lab2x48]", "[lab2x48", "lab.toml"),
    ],
)
def test_a_broken_file_is_refused_in_two_lines_that_name_file_and_key(tmp_path, old, new, named):
    assert old in LAB
    with pytest.raises(BadData) as caught:
        read_lab(tmp_path, LAB.replace(old, new))
    assert named in str(caught.value)
    assert "lab.toml" in str(caught.value)
    assert "\nnext: " in str(caught.value)


@pytest.mark.parametrize("name", ["skip", "xfail", "skipif", "parametrize", "usefixtures", "timed", "nightly", "or"])
def test_a_tier_is_not_named_as_a_mark_that_means_something(tmp_path, name):
    with pytest.raises(BadData, match=f"'{name}' already means something"):
        read_lab(tmp_path, LAB.replace("lab2x48", name))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(BadData, match=r"gone\.toml"):
        read_tiers(tmp_path / "gone.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadData, match=r"binary\.toml"):
        read_tiers(tmp_path / "binary.toml")


def test_an_unknown_case_names_those_there_are():
    with pytest.raises(BadInput, match="published_sharded"):
        read_tiers()["gpu4x24"].case("publish")


def test_every_figure_of_every_card_has_a_source():
    for card in read_cards(CARDS_FILE).values():
        figures = {name for name, value in vars(card).items() if isinstance(value, float)}
        assert figures == set(card.sources)
        assert all(card.sources.values())
        assert card.bf16_tflops > card.fp32_tflops


def test_a_card_is_found_by_its_exact_name_only():
    assert find_card("RTX 4090").usable_gib == 22.15
    for name in ("rtx 4090", "RTX 409", "4090", "RTX 4090 D"):
        with pytest.raises(BadInput, match="RTX 4090"):
            find_card(name)


def test_a_card_is_known_by_its_drivers_exact_name_only():
    assert find_card_by_driver_name("NVIDIA A100-SXM4-80GB").name == "A100 80GB SXM"
    assert find_card_by_driver_name("NVIDIA A100") is None


def test_products_of_a_type_that_a_card_lacks_have_no_rate():
    assert find_card("RTX 4090").peak_tflops("bfloat16") == 165.2
    with pytest.raises(BadInput, match="float8_e4m3fn"):
        find_card("A100 80GB SXM").peak_tflops("float8_e4m3fn")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("value = 23.65", "value = 0", "visible_gib"),
        ("value = 23.65", "value = 1.5", "visible_gib"),
        ("value = 23.65", "value = 25", "visible_gib"),
        ("value = 23.65", "value = nan", "visible_gib"),
        ("value = 23.65", 'value = "23.65"', "visible_gib"),
        ("visible_gib =", "visible =", "visible"),
        ("value = 23.65, source", "value = 23.65, origin", "origin"),
        ('driver_name = "NVIDIA GeForce RTX 4090"\n', "", "driver_name"),
    ],
)
def test_a_broken_card_is_refused_by_name(tmp_path, old, new, named):
    path = tmp_path / "cards.toml"
    text = CARDS_FILE.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(LiveAvatarError) as caught:
        cards.read_cards(path)
    assert named in str(caught.value)
    assert "RTX 4090" in str(caught.value)
