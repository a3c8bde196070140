"""What must be put right before baselines are merged."""

from dataclasses import replace

import pytest
from repository import FIVE, LATER, MACHINE, case, moved

from ci.baseline_diff import main
from suites.harness.verdicts.baselines import BaselineFile, MetricBaseline, render

OLD = case()
NEW = replace(OLD, measured=LATER)


@pytest.fixture
def objections(repository, capsys):
    """Exit status and output for OLD followed by another commit."""

    def run(head, base=OLD, **where):
        first = repository.put(published=base)
        second = repository.write(head, **where) if isinstance(head, str) else repository.put(published=head, **where)
        status = main([first, second, "--repository", str(repository.folder)])
        return status, capsys.readouterr().out

    return run


@pytest.mark.parametrize(("key", "value"), [("rel", 0.02), ("abs", 0.5), ("limit", 22.0), ("limit", None)])
def test_a_loosened_tolerance_needs_a_reason(objections, key, value):
    status, text = objections(moved(NEW, "peak_vram_gib", **{key: value}))
    assert status == 1
    assert f"peak_vram_gib.{key} {getattr(OLD.metrics['peak_vram_gib'], key)} -> " in text
    assert text.startswith("to be put right: 1 to put right")


def test_a_reason_excuses_it(objections):
    loosened = moved(NEW, "peak_vram_gib", rel=0.02)
    why = "2026-11-21: peak_vram_gib.rel 0.01 -> 0.02: another allocator"
    assert objections(replace(loosened, history=(why,)))[0] == 0


WORST = moved(NEW, "peak_vram_gib", value=21.0, rel=0.5, abs=2.0, limit=22.15)
REASONS = (
    "2026-11-21: peak_vram_gib.rel 0.01 -> 0.5: why",
    "2026-11-21: peak_vram_gib.abs 0.1 -> 2: why",
    "2026-11-21: peak_vram_gib.limit 21.5 -> 22.15: why",
    "2026-11-21 2f0c2ab: peak_vram_gib 20 -> 21: why",
)


@pytest.mark.parametrize("recipe", ["9c41e07b", "00000000"])
@pytest.mark.parametrize("missing", range(len(REASONS)))
def test_each_change_needs_a_reason_of_its_own_whatever_the_recipe(objections, recipe, missing):
    history = REASONS[:missing] + REASONS[missing + 1 :]
    status, text = objections(replace(WORST, recipe=recipe, history=history))
    assert status == 1
    assert text.startswith("to be put right: 1 to put right")
    assert f"{REASONS[missing].split(': ')[1]}, without a reason of its own" in text


@pytest.mark.parametrize("recipe", ["9c41e07b", "00000000"])
def test_reasons_for_all_excuse_all(objections, recipe):
    assert objections(replace(WORST, recipe=recipe, history=REASONS))[0] == 0


def test_a_word_is_no_reason(objections):
    status, text = objections(replace(WORST, history=("typo",)))
    assert status == 1
    assert text.startswith("to be put right: 5 to put right")
    assert "history says 'typo', and nothing such changed" in text


def test_what_is_lost_needs_a_reason(objections):
    fewer = replace(NEW, metrics={"peak_vram_gib": OLD.metrics["peak_vram_gib"]})
    status, text = objections(fewer)
    assert status == 1
    assert "predicted_seconds_per_clip 22.0 -> lost" not in text
    assert "predicted_seconds_per_clip 22 -> lost, without a reason of its own" in text


def test_what_crept_is_not_forgotten(objections):
    crept = moved(OLD, "peak_vram_gib", value=20.05, best=20.0, spread=0.1)
    forgotten = replace(moved(crept, "peak_vram_gib", value=20.06, best=None), measured=LATER)
    status, text = objections(forgotten, base=crept)
    assert status == 1
    assert "peak_vram_gib has best None where an update writes 20.0" in text


@pytest.mark.parametrize(("value", "status"), [(20.15, 0), (20.25, 1)])
def test_creeping_beyond_the_tolerance_needs_a_reason(objections, value, status):
    crept = moved(OLD, "peak_vram_gib", value=20.1, best=20.0, spread=0.2)
    assert objections(replace(moved(crept, "peak_vram_gib", value=value), measured=LATER), base=crept)[0] == status


def test_a_tightened_tolerance_needs_none(objections):
    assert objections(moved(NEW, "peak_vram_gib", rel=0.005, limit=21.0))[0] == 0


@pytest.mark.parametrize(("value", "status"), [(20.2, 1), (19.8, 0)])
def test_a_worse_value_needs_a_reason_as_in_updates(objections, value, status):
    assert objections(moved(NEW, "peak_vram_gib", value=value))[0] == status


def test_history_only_grows(objections):
    old = replace(OLD, history=("first", "second"))
    status, text = objections(replace(old, history=("second",)), base=old)
    assert status == 1
    assert "history lost" in text


def test_an_edited_value_keeps_no_measurement(objections):
    status, text = objections(moved(OLD, "peak_vram_gib", value=19.0))
    assert status == 1
    assert "of the same run" in text


def test_values_of_a_dirty_tree_are_noted(objections):
    status, text = objections(replace(OLD, measured=replace(LATER, commit="1f0c2ab+")))
    assert status == 0
    assert "with changes that no commit has" in text


@pytest.mark.parametrize(("name", "status"), [("tokens", 1), ("latent_cosine", 0), ("colour_drift", 0)])
def test_metrics_are_named_after_their_unit(objections, name, status):
    metrics = OLD.metrics | {name: MetricBaseline(value=1.0, rel=0.1, abs=0.01)}
    assert objections(replace(NEW, metrics=metrics))[0] == status


def test_lines_in_another_order(objections):
    lines = render(BaselineFile(machine=MACHINE, cases={"published": OLD})).splitlines()
    swapped = [*lines[:-2], lines[-1], lines[-2]]
    status, text = objections("\n".join(swapped) + "\n")
    assert status == 1
    assert f"{FIVE}: line {len(lines) - 1} is 'predicted" in text


def test_a_missing_last_newline(objections):
    assert objections(render(BaselineFile(machine=MACHINE, cases={"published": OLD}))[:-1])[0] == 1


def test_a_folder_of_another_machine(objections):
    status, text = objections(OLD, path="simulated-rtx4090x4/gpu5x24.toml")
    assert status == 1
    assert "move it to simulated-rtx4090x5/" in text


@pytest.mark.parametrize("text", ["not toml", "[machine]\n", '[machine]\nhardware = "simulated"\n[case]\nvalue = 1\n'])
def test_files_that_cannot_be_read(objections, text):
    status, said = objections(text)
    assert status == 1
    assert f"{FIVE}" in said


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ({}, "does not list all its metrics"),
        ({"peak_vram_gib", "predicted_seconds_per_clip", "latent_cosine"}, "lists latent_cosine, of which there is no"),
    ],
    ids=["not listed", "lost"],
)
def test_the_index_lists_what_there_is(repository, capsys, index, named):
    base = repository.put(published=OLD)
    repository.write_index({"simulated-rtx4090x5/gpu5x24/published": tuple(sorted(index))} if index else {})
    assert main([base, repository.commit(), "--repository", str(repository.folder)]) == 1
    assert named in capsys.readouterr().out


def test_a_case_that_is_gone_from_its_file_and_not_from_the_index(repository, capsys):
    base = repository.put(published=OLD, other=OLD)
    head = repository.write(render(BaselineFile(machine=MACHINE, cases={"published": OLD})))
    assert main([base, head, "--repository", str(repository.folder)]) == 1
    assert "index.toml: simulated-rtx4090x5/gpu5x24/other: lists peak_vram_gib" in capsys.readouterr().out


def test_a_limit_above_the_card(objections):
    text = render(BaselineFile(machine=MACHINE, cases={"published": NEW})).replace("limit = 21.5", "limit = 99.0")
    status, said = objections(text)
    assert status == 1
    assert "peak_vram_gib limit 99 is more than the 22.15 GiB of a card" in said
