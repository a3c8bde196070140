"""The comparison of what is simulated with what a build of torch for cards does."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from waiting import PATIENCE

from ci import cuda_dry_run, dry_run_record
from ci.dry_run_differences import (
    Comparison,
    Explanations,
    KernelDifference,
    MemoryDifference,
    compare,
    read_explanations,
    table,
)
from ci.dry_run_record import ExecutedRank, chosen_cases, execute, read_record, write_record
from liveavatar_core.errors import BadData, BadInput
from liveavatar_core.recipes import miniature, named_recipe

CUDA_PYTHON = Path(__file__).parents[2] / ".cuda-dry-run/bin/python"

ON_CPU = ExecutedRank(
    case="gpu1x80.single",
    rank=0,
    torch="2.13.0+cpu",
    device="cpu",
    operations={"denoise": {"card aten.pow": 6, "card aten.rsub": 6, "card aten.mul": 10, "host aten.clone": 1}},
    totals={"denoise": {"FLOPs": 1000, "bytes sent": 0}},
    memory={"denoise": {"card": 4096, "card parameters": 4096, "host": 512, "reserved": 2**21}},
)
ON_CARD = replace(
    ON_CPU,
    torch="2.13.0+cu130",
    device="cuda",
    operations={"denoise": {"card aten.norm": 6, "card aten.mul": 4, "host aten._to_copy": 1}},
    memory={"denoise": {"card": 2048, "card parameters": 2048, "host": 512, "reserved": 2**21}},
)
NORM = KernelDifference(
    on_cpu={"card aten.pow": 1, "card aten.rsub": 1, "card aten.mul": 1},
    on_card={"card aten.norm": 1},
    because="one kernel",
)
MOVE = KernelDifference(on_cpu={"host aten.clone": 1}, on_card={"host aten._to_copy": 1}, because="a move")
LESS = MemoryDifference(
    memory=("card", "card parameters"), least_bytes=-2048, most_bytes=-2048, because="one is elsewhere"
)
EXPLAINED = Explanations(operations=(NORM, MOVE), memory=(LESS,))


def compared(explained: Explanations = EXPLAINED, on_card: ExecutedRank = ON_CARD) -> Comparison:
    return compare([ON_CPU], [on_card], explained)


def with_operations(**changes: int) -> ExecutedRank:
    """On the card, with other numbers of operations of one kind."""
    changed = {f"card aten.{name}": count for name, count in changes.items()}
    return replace(ON_CARD, operations={"denoise": ON_CARD.operations["denoise"] | changed})


def test_what_is_explained_is_counted_and_nothing_is_left() -> None:
    found = compared()
    assert found.unexplained == []
    assert list(found.idle()) == []
    assert dict(found.times) == {0: 6, 1: 1}
    assert found.seen == {0: [-2048, -2048]}


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (with_operations(rsub=1), "denoise: +1 card aten.norm"),
        (with_operations(norm=7), "denoise: +1 card aten.norm"),
        (with_operations(mul=5), "denoise: +1 card aten.norm"),
        (with_operations(unheard_of=1), "denoise: +1 card aten.unheard_of"),
        (replace(ON_CARD, totals={"denoise": {"FLOPs": 999}}), "denoise: -1 FLOPs"),
        (replace(ON_CARD, memory={"denoise": ON_CARD.memory["denoise"] | {"host": 0}}), "denoise: -512 bytes, host"),
        (replace(ON_CARD, memory={"denoise": ON_CARD.memory["denoise"] | {"card": 2560}}), "-1536 bytes, card"),
        (replace(ON_CARD, operations=ON_CARD.operations | {"decode": {"card aten.mm": 2}}), "decode: +2 card aten.mm"),
    ],
)
def test_anything_else_is_not_explained(other: ExecutedRank, line: str) -> None:
    assert any(line in each for each in compared(on_card=other).unexplained)


def test_an_explanation_holds_in_its_phases_and_as_often_as_it_says() -> None:
    elsewhere, once = replace(NORM, phases=("decode",)), replace(NORM, most=1)
    assert compared(Explanations(operations=(elsewhere, MOVE), memory=(LESS,))).unexplained
    assert compared(Explanations(operations=(once, MOVE), memory=(LESS,))).times[0] == 1


def test_an_explanation_of_nothing_is_an_objection_where_all_was_executed(tmp_path: Path) -> None:
    page = document(tmp_path)
    idle = KernelDifference(on_card={"card aten.gone": 1}, because="it was so once")
    found = {"kernels": compared(replace(EXPLAINED, operations=(NORM, MOVE, idle)))}
    assert list(found["kernels"].idle()) == ["it was so once"]
    assert cuda_dry_run.judge(found, whole=True, update=True, document=page) == 1
    assert cuda_dry_run.judge(found, whole=False, document=page) == 0


def document(folder: Path) -> Path:
    page = folder / "page.md"
    page.write_text("# Page\n<!-- kernels -->\n<!-- end of kernels -->\nrest\n", encoding="utf-8")
    return page


def test_a_document_that_lists_other_differences_fails_until_it_is_written(tmp_path: Path, capsys) -> None:
    page, found = document(tmp_path), {"kernels": compared()}
    assert cuda_dry_run.judge(found, whole=True, document=page) == 1
    assert "next: make cuda-dry-run UPDATE_DOCS=--update-docs" in capsys.readouterr().out
    assert cuda_dry_run.judge(found, whole=True, update=True, document=page) == 0
    assert cuda_dry_run.judge(found, whole=True, document=page) == 0
    written = page.read_text(encoding="utf-8")
    assert "| `card aten.pow`, `card aten.rsub`, `card aten.mul` | `card aten.norm` | 6 | one kernel |" in written
    assert written.endswith("\nrest\n")


def test_an_unexplained_difference_writes_no_document(tmp_path: Path, capsys) -> None:
    page = document(tmp_path)
    before = page.read_text(encoding="utf-8")
    found = {"kernels": compared(on_card=with_operations(unheard_of=1))}
    assert cuda_dry_run.judge(found, whole=True, update=True, document=page) == 1
    assert page.read_text(encoding="utf-8") == before
    assert "unexplained: gpu1x80.single rank 0, denoise: +1 card aten.unheard_of" in capsys.readouterr().out


def test_where_nothing_differs_the_table_says_so() -> None:
    same = compare([ON_CPU], [ON_CPU], Explanations())
    assert (table(same), same.unexplained) == (("Nothing.",), [])


def test_a_rank_that_one_record_lacks_is_named() -> None:
    with pytest.raises(BadData, match=r"gpu1x80\.single rank 0"):
        compare([ON_CPU], [], EXPLAINED)


def test_records_are_read_as_they_were_written_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    write_record(path, [ON_CPU, ON_CARD])
    assert read_record(path) == [ON_CPU, ON_CARD]
    path.write_text("{", encoding="utf-8")
    with pytest.raises(BadData, match="cannot be read"):
        read_record(path)


def test_every_tier_and_remedy_is_executed() -> None:
    names = [name for name, _ in chosen_cases([])]
    assert {"gpu4x24.published_sharded", "gpu1x24.block_offload_int8", "gpu5x80.timestep_pipeline"} <= set(names)
    assert not any(name.startswith("quality") for name in names), "made in miniature alone"
    with pytest.raises(BadInput, match=r"no case 'gpu9x9\.none'"):
        list(chosen_cases(["gpu9x9.none"]))


def test_every_difference_that_is_known_has_a_reason() -> None:
    assert read_explanations().keys() == cuda_dry_run.COMPARISONS.keys()
    with pytest.raises(ValueError, match="because of what"):
        KernelDifference(on_card={"card aten.mm": 1}, because="")


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built with CUDA")
def test_a_torch_without_cuda_is_refused_with_a_next_step(tmp_path: Path, capsys) -> None:
    path = tmp_path / "record.jsonl"
    assert dry_run_record.main(["--cuda-build", f"--out={path}"]) == 2
    assert "is built without CUDA\nnext: make cuda-dry-run" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(("name", "cards"), [("published_sharded", 5), ("fp8_offload", 1)])
def test_a_miniature_differs_as_is_explained(name: str, cards: int) -> None:
    """Operations, that is: of its few bytes pages of pinned memory are a larger part."""
    recipe = miniature(named_recipe(name, cards))
    on_cpu, on_card = (execute("small", recipe, 0, device) for device in ("cpu", "cuda"))
    explained = replace(read_explanations()["kernels"], memory=())
    found = compare([on_cpu], [on_card], explained)
    assert [line for line in found.unexplained if "bytes, " not in line] == []
    assert sum(found.times.values()) > 100


SCRIPT = """
from pathlib import Path
from ci.dry_run_record import check_build, execute, write_record
from liveavatar_core.recipes import miniature, named_recipe
check_build()
write_record(Path({path!r}), [execute("small", miniature(named_recipe({name!r}, {cards})), 0, "cuda")])
"""


@pytest.mark.skipif(not CUDA_PYTHON.exists(), reason="there is no torch with CUDA: make cuda-dry-run sets one up")
def test_a_build_with_cuda_does_what_is_simulated(tmp_path: Path) -> None:
    name, cards, path = "published_replicated", 5, tmp_path / "card.jsonl"
    script = SCRIPT.format(path=str(path), name=name, cards=cards)
    subprocess.run([CUDA_PYTHON, "-c", script], cwd=CUDA_PYTHON.parents[2], check=True, timeout=PATIENCE)
    simulated = execute("small", miniature(named_recipe(name, cards)), 0, "cuda")
    assert compare([simulated], read_record(path), read_explanations()["builds"]).unexplained == []
