"""What the comment on a pull request says of a change, verdict first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from canned import passed, ran_out
from repository import case, moved

from ci.change_comment import MARKER, MOST_CHARACTERS, fitted, main
from liveavatar_core.errors import GIB


@pytest.fixture
def comment(repository, tmp_path, capsys, monkeypatch):
    """The exit status and the comment of a change from some records to others; baselines as given."""
    monkeypatch.chdir(repository.folder)
    base = repository.put(published=case())

    def run(before, after, *options, head=None):
        folders = []
        for name, records in (("before", before), ("after", after)):
            folder = tmp_path / name / "records"
            folder.mkdir(parents=True)
            for number, record in enumerate(records):
                (folder / f"{number}.json").write_text(record.to_json())
            folders += [f"--{name}", str(folder.parent)]
        if not before:
            folders = folders[2:]
        status = main([base, head or base, *folders, *options])
        return status, *capsys.readouterr()

    return run


def test_nothing_moved(comment):
    status, text, _ = comment([passed()], [passed(commit="2f0c2ab")])
    assert status == 0
    assert text.splitlines()[:3] == [MARKER, "", "### No simulated run moves: 1 are the same to the byte"]
    assert "| run |" not in text, "values are not listed where nothing moved"


def test_memory_that_grew_is_the_headline_to_the_byte(comment):
    _, text, _ = comment([passed(peak=19.0), passed(case="other")], [passed(peak=19.25), passed(case="other")])
    assert "### gpu5x24 published_sharded needs 0.25 GiB more; 1 of 2 runs move" in text
    assert f"19.00 -&gt; 19.25 GiB (+{GIB // 4:,} bytes)" in text
    assert "1 runs are the same to the byte." in text


def test_another_ending_comes_before_memory(comment):
    known = passed()
    short = replace(ran_out(), tier=known.tier, case=known.case, hardware=known.hardware)
    before, after = [known, passed(case="other", peak=15.0)], [short, passed(case="other", peak=18.0)]
    assert "### gpu5x24 published_sharded ends in out of memory, not in pass" in comment(before, after)[1]


def test_another_recipe_is_told_by_its_fields(comment):
    before = passed()
    declared = {**before.recipe.declared, "deployment": {"lora": "merged"}}
    first = replace(before, recipe=replace(before.recipe, declared=declared | {"deployment": {"lora": "adapter"}}))
    second = replace(before, recipe=replace(before.recipe, declared=declared, hash="00000000"))
    assert "deployment.lora: adapter -&gt; merged" in comment([first], [second])[1]


def test_runs_that_came_or_went_are_named(comment):
    text = comment([passed()], [passed(case="new")])[1]
    assert "2 came or went" in text
    assert "gpu5x24 new simulated: in" in text


def test_without_records_of_the_base_it_says_so(comment):
    assert "### Nothing could be compared" in comment([], [passed()])[1]


def test_what_is_to_be_put_right_fails_and_is_annotated_where_it_stands(comment, repository):
    head = repository.put(published=moved(case(), "peak_vram_gib", rel=0.5))
    status, text, told = comment([passed()], [passed()], "--annotate", head=head)
    assert status == 1
    assert "**Baselines: to be put right" in text
    lines = (repository.folder / "baselines/simulated-rtx4090x5/gpu5x24.toml").read_text().splitlines()
    line = next(at for at, each in enumerate(lines, 1) if each.startswith("peak_vram_gib"))
    place = f"file=baselines/simulated-rtx4090x5/gpu5x24.toml,line={line}"
    assert f"::error {place},title=baseline::peak_vram_gib.rel" in told
    assert "%0Anext: " in told


def test_links_end_it(comment):
    text = comment([passed()], [passed()], "--link", "page=https://example.org/a=b")[1]
    assert text.rstrip().endswith("[page](https://example.org/a=b)")


@pytest.mark.parametrize("size", [10, MOST_CHARACTERS])
def test_it_always_fits_and_says_what_was_left_out(size):
    text = fitted(["verdict", "x" * size], ["a" * 30_000] * 3, "links")
    assert len(text) <= MOST_CHARACTERS + 100
    assert text.startswith("verdict")
    assert "did not fit here" in text or "Cut here" in text


def test_records_that_cannot_be_read_are_an_error(comment, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, told = comment([passed()], [passed()], "--before", str(tmp_path / "empty"))
    assert (status, "next: " in told) == (2, True)
