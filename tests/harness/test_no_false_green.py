"""What once came out green and must not: each test is a way to get a pass that means nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
from canned import memory, passed, physical, ran_out
from lab import said

from liveavatar_core.errors import BadData
from suites.harness.records.record import RunRecord
from suites.harness.verdicts.baselines import read_baseline
from suites.harness.verdicts.verdict import EXIT_CODES, Verdict

pytest_plugins = ["pytester"]


def only(record: RunRecord, *, ranks=(0, 1), phases=("load", "denoise")) -> RunRecord:
    """`record` without the readings of other ranks and phases."""
    kept = tuple(each for each in record.memory if each.rank in ranks and each.phase in phases)
    return replace(record, memory=kept)


@pytest.mark.parametrize("options", [(), ("--baseline-update-new-only",), ("--baseline-compare=off",)])
def test_more_than_the_card_holds_fails_without_a_baseline_and_becomes_none(lab, options):
    lab.put(passed(peak=40.0))
    result = lab.run(*options)
    assert result.ret == EXIT_CODES[Verdict.OVER_LIMIT]
    assert "peak_vram_gib 40 against a limit of 22.15" in said(result)
    assert not lab.files


def test_a_limit_of_a_baseline_above_the_card_ends_the_session(lab):
    lab.baseline(passed())
    lab.files[0].write_text(lab.files[0].read_text().replace("limit = 22.15", "limit = 99.0"))
    result = lab.run_apart()
    assert result.ret == 2
    assert "limit 99 is more than the 22.15 GiB of a card" in result.stderr.str()


@pytest.mark.parametrize(
    "identity",
    [
        {"hardware": "partitioned", "card": "NVIDIA H200", "cards": 1, "imitated_card": "RTX 4090"},
        {"hardware": "physical", "card": "NVIDIA GeForce RTX 4090", "cards": 5},
        {"hardware": "physical", "card": "Card X", "cards": 5, "card_memory_bytes": 24 * 1024**3},
    ],
    ids=lambda identity: identity["card"],
)
def test_a_limit_is_held_against_the_card_that_counts(tmp_path: Path, identity):
    path = tmp_path / "a.toml"
    machine = "\n".join(f"{key} = {value!r}" for key, value in identity.items())
    case = 'recipe = "9c41e07b"\noutcome = "pass"\n'
    case += 'measured = { commit = "1f0c2ab", date = 2026-11-20, torch = "2.13.0", run = "local" }\n'
    peak = "peak_vram_gib = { value = 20.0, rel = 0.01, abs = 0.1, limit = 25.0 }\n"
    path.write_text(f"[machine]\n{machine}\n[case]\n{case}{peak}")
    with pytest.raises(BadData, match="limit 25 is more than the 2"):
        read_baseline(path)


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (only(passed(), ranks=(0,)), "rank 1: load, denoise"),
        (only(passed(), phases=("load",)), "rank 0: denoise; rank 1: denoise"),
        (replace(passed(), memory=()), "rank 0: load, denoise; rank 1: load, denoise"),
        (passed(expected_phases={}), "names no rank"),
    ],
    ids=["a rank", "a phase", "everything", "no expectation"],
)
@pytest.mark.parametrize("options", [(), ("--baseline-update", "--baseline-reason", "please")])
def test_a_record_that_lacks_a_rank_or_a_phase_is_no_pass_and_no_improvement(lab, record, named, options):
    lab.baseline(passed())
    before = lab.files[0].read_bytes()
    lab.put(record)
    result = lab.run(*options)
    assert result.ret == EXIT_CODES[Verdict.MISSING_METRIC]
    assert named in " ".join(said(result).split())
    assert lab.files[0].read_bytes() == before


def test_a_run_that_ran_out_must_have_loaded_on_every_rank(lab):
    lab.tests("gpu4x24", "published_sharded")
    loaded = tuple(memory(rank, "load", 21.5) for rank in (0, 1))
    lab.put(ran_out(memory=loaded[:1]))
    result = lab.run("-m", "gpu4x24")
    assert result.ret == EXIT_CODES[Verdict.MISSING_METRIC]
    assert "rank 1: load" in said(result)
    lab.put(ran_out(memory=loaded))
    assert lab.run("-m", "gpu4x24").ret == 0


def test_a_folder_of_baselines_that_is_not_there_ends_the_session(lab):
    lab.baseline(passed())
    result = lab.run_apart("--baseline-dir", "baselnies")
    assert result.ret == 2
    assert "--baseline-dir baselnies: there is no folder" in result.stderr.str()


def delete_file(lab):
    lab.files[0].unlink()


def delete_case(lab):
    lab.files[0].write_text(lab.files[0].read_text().split('["published_sharded"]')[0])


def delete_line(lab):
    lines = lab.files[0].read_text().splitlines(keepends=True)
    lab.files[0].write_text("".join(line for line in lines if not line.startswith("peak_vram_gib")))


@pytest.mark.parametrize("delete", [delete_file, delete_case, delete_line])
def test_a_deleted_baseline_is_lost_and_not_new(lab, delete):
    lab.baseline(passed())
    delete(lab)
    result = lab.run()
    assert result.ret == 0
    assert "lost-baseline: gpu5x24/published_sharded on simulated cards" in said(result)
    assert "needs-baseline" not in said(result)
    assert lab.run("--require-baselines").ret == EXIT_CODES[Verdict.LOST_BASELINE]


@pytest.mark.parametrize("delete", [delete_file, delete_case, delete_line])
@pytest.mark.parametrize("option", ["--baseline-update", "--baseline-update-new-only"])
def test_an_update_does_not_bring_a_worse_value_in_by_way_of_a_deletion(lab, delete, option):
    lab.baseline(passed(peak=20.0))
    delete(lab)
    lab.put(passed(peak=21.0))
    assert lab.run(option, "--baseline-reason", "please").ret == EXIT_CODES[Verdict.LOST_BASELINE]
    assert not any("value = 21.0" in path.read_text() for path in lab.files)


def test_a_new_case_or_metric_has_no_baseline_yet_which_fails_only_where_one_is_required(lab):
    lab.baseline(passed())
    lab.put(passed(quality={"latent_cosine": 0.99}))
    assert lab.run().ret == 0
    result = lab.run("--require-baselines")
    assert result.ret == EXIT_CODES[Verdict.NEEDS_BASELINE]
    assert "lost-baseline" not in said(result)


def test_requiring_baselines_and_not_comparing_exclude_each_other(lab):
    assert lab.run_apart("--require-baselines", "--baseline-compare=off").ret == 2


def test_every_run_in_continuous_integration_requires_baselines():
    root = Path(__file__).parents[2]
    makefile = (root / "Makefile").read_text()
    sessions = [line for line in makefile.splitlines() if "pytest" in line and "suites" in line.lower()]
    sessions += (root / ".github/workflows/nightly.yml").read_text().split("run:")
    judged = [text for text in sessions if "--hardware" in text or "--require-hardware" in text]
    assert len(judged) >= 3
    assert [text for text in judged if "--require-baselines" not in text] == []


def other_recipe(record: RunRecord) -> RunRecord:
    return replace(record, recipe=replace(record.recipe, hash="00000000"))


def test_what_a_changed_recipe_loses_is_listed_and_needs_a_reason(lab):
    lab.baseline(passed(quality={"latent_cosine": 0.99}))
    before = lab.files[0].read_bytes()
    lab.put(other_recipe(passed()))
    assert "lost with it: latent_cosine" in " ".join(said(lab.run()).split())
    refused = lab.run("--baseline-update")
    assert refused.ret == EXIT_CODES[Verdict.REGRESSED]
    assert "latent_cosine 0.99 -> lost" in said(refused)
    assert lab.files[0].read_bytes() == before
    assert lab.run("--baseline-update", "--baseline-reason", "no reference at this size").ret == 0
    assert "latent_cosine 0.99 -> lost: no reference at this size" in lab.files[0].read_text()


def test_over_the_limit_is_never_updated_whatever_else_changed(lab):
    lab.baseline(passed())
    lab.files[0].write_text(lab.files[0].read_text().replace("limit = 22.15", "limit = 21.0"))
    before = lab.files[0].read_bytes()
    lab.put(other_recipe(passed(peak=22.0)))
    result = lab.run("--baseline-update", "--baseline-reason", "please")
    assert result.ret == EXIT_CODES[Verdict.OVER_LIMIT]
    assert "22 against a limit of 21" in said(result)
    assert lab.files[0].read_bytes() == before


def test_five_small_steps_are_not_five_times_nothing(lab):
    lab.offer("physical")

    def night(median):
        return physical(clips=(median - 2, median - 1, median, median + 1, median + 2))

    lab.baseline(night(22.0))
    statuses = []
    for step in range(1, 6):
        lab.put(night(22.0 + 1.9 * step))
        statuses.append(lab.run("--baseline-update").ret)
    assert statuses[0] == 0
    assert set(statuses[1:]) == {EXIT_CODES[Verdict.REGRESSED]}
    assert "value = 23.9" in lab.files[0].read_text()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("--report-html=/dev/full", "--report-html /dev/full names a"),
        ("--report-html=.", "--report-html . names a"),
        ("--history=/dev/full", "next: give --history another folder"),
        ("--report-dir=/dev/full", "next: give --report-dir another folder"),
    ],
)
def test_an_output_that_cannot_be_ends_the_session_before_anything_runs(lab, given, why):
    lab.put(passed())
    result = lab.run_apart(given)
    assert result.ret == 2
    assert why in result.stderr.str()
    assert not (lab.folder / "gpu5x24.published_sharded.runs").exists()
    assert not Path("/dev/full").is_file()
