"""Baseline files: the same bytes for the same values, no placeholders, and no silent loosening."""

import math
from dataclasses import replace
from datetime import date

import pytest
from canned import failed, memory, passed, physical, ran_out
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_core.errors import BadData, BadInput
from suites.harness.records.machine_identity import machine_identity, machine_profile_name
from suites.harness.verdicts.baseline_update import updated_case, with_new_metrics, write_case
from suites.harness.verdicts.baselines import (
    BaselineFile,
    CaseBaseline,
    MetricBaseline,
    Provenance,
    baseline_path,
    find_case,
    read_baseline,
    render,
)
from suites.harness.verdicts.reasons import reasons_of, what_got_worse

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)
NUMBER = st.floats(min_value=1e-6, max_value=1000)
METRIC = st.builds(
    MetricBaseline,
    value=NUMBER,
    spread=st.floats(0, 1),
    n=st.integers(1, 1000),
    rel=st.floats(0, 0.5),
    abs=st.floats(0, 2.5),
    limit=st.none() | NUMBER,
    best=st.none() | NUMBER,
)
CASE = st.builds(
    CaseBaseline,
    recipe=st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
    outcome=st.sampled_from(["pass", "oom"]),
    phase=st.none() | st.just("encode"),
    measured=st.builds(
        Provenance,
        commit=st.from_regex(r"[0-9a-f]{7,40}\+?", fullmatch=True),
        date=st.dates(),
        torch=TEXT,
        run=TEXT,
    ),
    metrics=st.dictionaries(TEXT.map(lambda name: f"{name}_gib"), METRIC, max_size=4),
    history=st.lists(TEXT, max_size=3).map(tuple),
)
MACHINE = st.dictionaries(TEXT, TEXT | st.integers(-(2**60), 2**60))
FILE = st.builds(BaselineFile, machine=MACHINE, cases=st.dictionaries(TEXT.filter("machine".__ne__), CASE, max_size=3))


@given(FILE)
@settings(max_examples=150)
def test_any_file_reads_back_and_renders_to_the_same_bytes(tmp_path_factory, file):
    path = tmp_path_factory.mktemp("baseline") / "a.toml"
    text = render(file)
    path.write_text(text, encoding="utf-8", newline="")
    assert read_baseline(path) == file
    assert render(read_baseline(path)) == text


def test_the_file_is_what_people_review(tmp_path):
    record = passed(case="published_sharded", peak=20.12)
    path = write_case(tmp_path, record, updated_case(None, record, None))
    assert path.relative_to(tmp_path).as_posix() == "simulated-rtx4090x5/gpu5x24.toml"
    assert path.read_text().splitlines()[2:] == [
        "[machine]",
        'card = "RTX 4090"',
        "cards = 5",
        'hardware = "simulated"',
        "",
        '["published_sharded"]',
        'recipe = "9c41e07b"',
        'outcome = "pass"',
        'measured = { commit = "1f0c2ab", date = 2026-11-20, torch = "2.13.0", run = "local" }',
        "load_vram_gib = { value = 17.2, spread = 0.0, n = 1, rel = 0.001, abs = 0.0001 }",
        "peak_vram_gib = { value = 20.12, spread = 0.0, n = 1, rel = 0.001, abs = 0.0001, limit = 22.15 }",
        "predicted_seconds_per_clip = { value = 8.125, spread = 0.0, n = 1, rel = 0.005, abs = 0.01 }",
    ]


def test_updating_unchanged_values_changes_no_byte(tmp_path):
    record = passed()
    path = write_case(tmp_path, record, updated_case(None, record, None))
    before = path.read_bytes()
    later = replace(record, commit="2222222", date=date(2027, 1, 1))
    write_case(tmp_path, later, updated_case(find_case(tmp_path, later), later, "no reason needed"))
    assert path.read_bytes() == before


def test_an_update_leaves_other_cases_alone(tmp_path):
    for name in ("b", "a"):
        write_case(tmp_path, passed(case=name), updated_case(None, passed(case=name), None))
    path = baseline_path(tmp_path, passed())
    before = read_baseline(path).cases["b"]
    write_case(tmp_path, passed(case="a", peak=19), updated_case(None, passed(case="a", peak=19), None))
    assert read_baseline(path).cases["b"] == before
    assert list(read_baseline(path).cases) == ["a", "b"]


def test_an_update_rewrites_values_never_tolerances():
    old = updated_case(None, passed(peak=20.0), None)
    tight = replace(old.metrics["peak_vram_gib"], rel=0.5, abs=0.125, limit=21.0)
    old = replace(old, metrics=old.metrics | {"peak_vram_gib": tight})
    new = updated_case(old, passed(peak=19.0), None).metrics["peak_vram_gib"]
    assert (new.value, new.rel, new.abs, new.limit) == (19.0, 0.5, 0.125, 21.0)


def test_a_worse_number_needs_a_reason_and_keeps_it():
    old = updated_case(None, passed(peak=20.0), None)
    with pytest.raises(BadInput, match=r"peak_vram_gib 20 -> 20\.001"):
        updated_case(old, passed(peak=20.001), None)
    new = updated_case(old, passed(peak=20.001), "decoder keeps one more frame")
    assert new.history == ("2026-11-20 1f0c2ab: peak_vram_gib 20 -> 20.001: decoder keeps one more frame",)
    newer = updated_case(new, passed(peak=20.002), "and another")
    assert newer.history[:1] == new.history
    assert len(newer.history) == 2


def test_a_new_entry_keeps_its_spread_and_gets_its_own_tolerance():
    entry = updated_case(None, physical(clips=(20.0, 22.0, 24.0)), None).metrics["seconds_per_clip"]
    assert (entry.value, entry.spread, entry.n, entry.rel, entry.abs) == (22.0, 2.0, 3, 0.05, 0.25)


def test_what_is_worse_than_noise_needs_a_reason_even_within_the_tolerance():
    """Its spread is 0 and its absolute tolerance a quarter of a second."""
    old = updated_case(None, physical(clips=(20.0,)), None)
    with pytest.raises(BadInput, match=r"seconds_per_clip 20 -> 20\.1"):
        updated_case(old, physical(clips=(20.1,)), None)


def test_a_pass_that_became_a_lack_of_memory_needs_a_reason():
    with pytest.raises(BadInput, match="outcome pass -> oom"):
        updated_case(updated_case(None, passed(), None), ran_out(), None)


def test_each_worse_number_has_a_line_of_its_own():
    old = updated_case(None, passed(peak=20.0, quality={"latent_cosine": 0.99}), None)
    new = updated_case(old, passed(peak=21.0, quality={"latent_cosine": 0.98}), "fewer bits")
    assert new.history == (
        "2026-11-20 1f0c2ab: latent_cosine 0.99 -> 0.98: fewer bits",
        "2026-11-20 1f0c2ab: peak_vram_gib 20 -> 21: fewer bits",
    )
    assert reasons_of(new.history).keys() == set(what_got_worse(old, new).values())


def test_what_is_lost_needs_a_reason_and_is_listed():
    old = updated_case(None, passed(quality={"latent_cosine": 0.99, "psnr_db": 40.0}), None)
    with pytest.raises(BadInput, match=r"latent_cosine 0\.99 -> lost; psnr_db 40 -> lost"):
        updated_case(old, passed(), None)
    new = updated_case(old, passed(), "no reference any more")
    assert new.history[0] == "2026-11-20 1f0c2ab: latent_cosine 0.99 -> lost: no reference any more"


def creeping(*medians: float):
    """A machine whose clips scatter by 2 s, slower from update to update."""
    for median in medians:
        yield physical(clips=(median - 2, median - 1, median, median + 1, median + 2))


def test_small_steps_need_a_reason_once_they_add_up():
    first, *later = creeping(22.0, 23.9, 25.8, 27.7)
    case = updated_case(None, first, None)
    case = updated_case(case, later[0], None)
    assert case.metrics["seconds_per_clip"].best == 22.0
    with pytest.raises(BadInput, match=r"seconds_per_clip 22 -> 25\.8"):
        updated_case(case, later[1], None)
    case = updated_case(case, later[1], "slower fans")
    assert case.history[-1].endswith("seconds_per_clip 22 -> 25.8: slower fans")
    assert case.metrics["seconds_per_clip"].best is None
    assert updated_case(case, later[2], None).metrics["seconds_per_clip"].best == 25.8


def test_a_better_value_is_where_creeping_begins_anew():
    first, better, back = creeping(24.0, 22.5, 24.4)
    case = updated_case(None, first, None)
    case = updated_case(case, better, None)
    assert case.metrics["seconds_per_clip"].best is None
    assert updated_case(case, back, None).metrics["seconds_per_clip"].best == 22.5


def test_noise_within_the_spread_needs_no_reason():
    old = updated_case(None, physical(clips=(20.0, 22.0, 24.0)), None)
    assert old.metrics["seconds_per_clip"].spread == 2.0
    assert updated_case(old, physical(clips=(22.0, 23.5, 24.0)), None).history == ()
    with pytest.raises(BadInput, match="seconds_per_clip"):
        updated_case(old, physical(clips=(24.5, 24.5)), None)


def test_new_only_adds_and_changes_nothing():
    old = updated_case(None, passed(peak=20.0), None)
    new = with_new_metrics(old, passed(peak=10.0, quality={"latent_cosine": 0.99}))
    assert new.metrics == old.metrics | {"latent_cosine": new.metrics["latent_cosine"]}
    assert new.measured == old.measured


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (passed(quality={"latent_cosine": math.nan}), "latent_cosine is nan"),
        (passed(quality={"history": 1.0}), "history"),
        (physical(clips=()), "seconds_per_clip"),
        (passed(commit=None), "commit"),
        (failed("crash"), "crash"),
        (passed(case="machine"), "machine"),
    ],
)
def test_what_was_not_measured_becomes_no_baseline(record, named):
    with pytest.raises(BadData, match=named):
        updated_case(None, record, None)


def test_a_zero_becomes_no_baseline():
    with pytest.raises(BadData, match="load_vram_gib 0 is a placeholder"):
        updated_case(None, passed(memory=(memory(0, "load", 0.0),)), None)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("value = 20.0", "value = 0.0", "placeholder"),
        ("value = 20.0", "value = -1.0", "placeholder"),
        ("value = 20.0", "value = nan", "value nan"),
        ("value = 20.0", "value = inf", "value inf"),
        ("value = 20.0", 'value = "20"', "value"),
        ("value = 20.0", "valu = 20.0", "valu"),
        ("value = 20.0, ", "", "'value' is missing"),
        ("n = 1,", "n = 0,", "n 0"),
        ("rel = 0.001, abs = 0.0001, limit", "rel = -1, abs = 0.0001, limit", "rel -1"),
        ("rel = 0.001, abs = 0.0001, limit", "rel = 0.6, abs = 0.0001, limit", "rel 0.6 lets everything through"),
        ("rel = 0.001, abs = 0.0001, limit", "rel = 0.001, abs = 9.0, limit", "abs 9 lets everything through"),
        ("value = 20.0, spread = 0.0", "value = 20.0, spread = 1e9", "spread 1e+09 lets everything through"),
        ("value = 20.0", "value = 21474836480.0", "2.14748e+10 is more than 1024 GiB"),
        ('recipe = "9c41e07b"', 'recipe = "TODO"', "recipe 'TODO'"),
        ('outcome = "pass"', 'outcome = "hang"', "outcome"),
        ('commit = "1f0c2ab"', 'commit = "unknown"', "commit 'unknown'"),
        ("date = 2026-11-20", 'date = "soon"', "date"),
        ("[machine]", "[machines]", "'machine' is missing"),
        ("[machine]", "<<<<<<< ours", "gpu5x24.toml"),
    ],
)
def test_a_broken_file_is_refused_in_two_lines_that_name_it(tmp_path, old, new, named):
    record = passed()
    path = write_case(tmp_path, record, updated_case(None, record, None))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1) if old != "value = 20.0, " else text.replace(old, new))
    with pytest.raises(BadData) as caught:
        find_case(tmp_path, record)
    assert named in str(caught.value)
    assert "gpu5x24.toml" in str(caught.value)
    assert "\nnext: " in str(caught.value)


def test_machines_that_differ_in_anything_have_different_baselines(tmp_path):
    record = physical(clips=(1.0,))
    parts = {"card": "NVIDIA GeForce RTX 4090 D", "cards": 4, "card_memory_bytes": 1, "driver": "570.2"}
    parts |= {"cuda": "13.0", "torch": "2.14.0", "link": "pcie3", "allocator": "expandable_segments:True"}
    parts |= {"attention_backend": "cudnn", "compiler": "inductor", "imitated_card": "RTX 3090", "imitated_cards": 4}
    names = {baseline_path(tmp_path, record)}
    for name, value in parts.items():
        names.add(baseline_path(tmp_path, replace(record, machine=replace(record.machine, **{name: value}))))
    assert len(names) == 1 + len(parts)


def test_hardware_modes_have_different_baselines():
    profiles = {machine_profile_name(machine_identity(passed(hardware=mode))) for mode in ("simulated", "miniature")}
    assert profiles == {"simulated-rtx4090x5", "miniature"}


def test_hostile_names_of_machines_stay_in_the_folder(tmp_path):
    record = passed(machine=replace(passed().machine, card="../../etc"))
    assert baseline_path(tmp_path, record).parent.parent == tmp_path


def test_a_baseline_moved_to_another_machine_is_refused(tmp_path):
    path = write_case(tmp_path, passed(), updated_case(None, passed(), None))
    path.write_text(path.read_text().replace("cards = 5", "cards = 8"))
    with pytest.raises(BadData, match="another machine"):
        find_case(tmp_path, passed())


def test_an_update_keeps_the_spread_and_the_number_of_samples_of_the_new_values():
    before = updated_case(None, physical(clips=(20.0, 20.0, 20.0)), None)
    after = updated_case(before, physical(clips=(18.0, 18.5, 19.0, 19.5, 20.0)), None)
    kept = after.metrics["seconds_per_clip"]
    assert (kept.value, kept.spread, kept.n, kept.best) == (19.0, 1.0, 5, None)


def test_what_has_no_number_becomes_no_baseline_and_says_why():
    with pytest.raises(BadData) as caught:
        updated_case(None, passed(quality={"psnr_db": float("nan")}), None)
    assert "psnr_db is nan (as measured)" in caught.value.what
    with pytest.raises(BadData) as caught:
        updated_case(None, passed(memory=(memory(0, "load", None),)), None)
    assert "load_vram_gib is nan (no reading)" in caught.value.what
    assert caught.value.next_step == "measure it, then update"


def test_what_is_new_is_added_to_nothing_as_to_something():
    record = passed(quality={"psnr_db": 40.0})
    assert with_new_metrics(None, record) == updated_case(None, record, None)
    old = updated_case(None, passed(peak=19.0, commit="2f0c2ab"), None)
    new = with_new_metrics(old, record)
    assert (new.metrics["peak_vram_gib"].value, new.metrics["psnr_db"].value) == (19.0, 40.0)
    assert new.measured == old.measured
