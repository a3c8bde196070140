"""A run record survives its file, is written whole, and refuses what was not measured."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from canned import failed, memory, passed, ran_out
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_core import files
from liveavatar_core.errors import BadData, InvalidRecipe
from liveavatar_core.files import write_atomically
from liveavatar_core.recipes import RECIPES, named_recipe
from suites.harness.records.measurements import PhaseMemory
from suites.harness.records.record import DeclaredRecipe, RunRecord, read_record


@pytest.mark.parametrize("record", [passed(), ran_out(), failed("hang")], ids=lambda record: record.outcome)
def test_a_record_survives_its_document(record):
    assert RunRecord.from_json(record.to_json()) == record


@given(st.text(), st.dictionaries(st.text(), st.floats(allow_nan=False)))
def test_any_words_and_numbers_survive(text, quality):
    record = failed("crash", run=text, quality=quality)
    assert RunRecord.from_json(record.to_json()) == record


def test_nan_survives_in_a_document_that_any_json_reader_reads():
    text = passed(quality={"latent_cosine": math.nan}).to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert math.isnan(RunRecord.from_json(text).quality["latent_cosine"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": 99}, "schema 99"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"emulated": "yes"}, "emulated"),
        ({"outcome": "fine"}, "outcome"),
        ({"memory": [{"rank": 0}]}, "phase"),
        ({"date": "yesterday"}, "date"),
        ({"outcome": "oom"}, "out_of_memory"),
    ],
)
def test_a_wrong_document_is_refused_by_name(change, named):
    with pytest.raises(BadData, match=named):
        RunRecord.from_json(json.dumps(json.loads(passed().to_json()) | change))


def test_an_absent_key_is_named():
    data = json.loads(passed().to_json())
    del data["machine"]
    with pytest.raises(BadData, match="'machine' is missing"):
        RunRecord.from_json(json.dumps(data))


def test_a_reading_is_never_null_without_a_reason():
    with pytest.raises(BadData, match="allocated_bytes is null without a reason"):
        replace(memory(0, "load", None), missing={})
    assert isinstance(memory(0, "load", None), PhaseMemory)


def test_peaks_are_over_ranks_and_phases():
    record = passed(peak=20.0)
    assert record.peak_bytes() == record.peak_bytes(rank=0) > record.peak_bytes(rank=1)
    assert record.peak_bytes(phase="load") < record.peak_bytes(phase="denoise")
    assert record.peak_bytes(phase="decode") is None


@pytest.mark.parametrize("name", RECIPES)
def test_every_declared_input_is_in_the_record(name):
    try:
        recipe = named_recipe(name, 5)
    except InvalidRecipe:  # one of those for a card alone
        recipe = named_recipe(name, 1)
    declared = DeclaredRecipe.of(recipe)
    assert (declared.name, declared.hash) == (recipe.name, recipe.hash)
    assert declared.declared["deployment"]["num_gpus_dit"] == recipe.deployment.num_gpus_dit
    assert json.loads(json.dumps(declared.declared)) == declared.declared


def test_a_record_is_found_where_it_was_written(tmp_path):
    path = passed().write(tmp_path)
    assert path == tmp_path / "records" / "gpu5x24.published_sharded.simulated.json"
    assert read_record(path) == passed()


def test_hostile_names_stay_in_the_folder(tmp_path):
    path = passed(case="../../etc/passwd\n").write(tmp_path)
    assert path.parent == tmp_path / "records"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(BadData, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_text_that_no_file_can_hold_is_refused(tmp_path):
    with pytest.raises(BadData, match="cannot be written"):
        write_atomically(tmp_path / "a.json", "\ud800")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    Path(tmp_path / "file").write_text("")
    with pytest.raises(BadData, match="cannot be written"):
        passed().write(tmp_path / "file")


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    record = failed("crash")
    with pytest.raises(BadData, match="phase"):
        replace(record, failure=replace(record.failure, phase="nap")).write(tmp_path)
    assert not list(tmp_path.iterdir())
