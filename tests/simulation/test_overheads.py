"""What is no tensor on a card: items with sources, what they come to, and what `doctor` says of them."""

from __future__ import annotations

import tomllib

import pytest

from liveavatar_core.cli.doctor.driver import TorchBuild
from liveavatar_core.cli.doctor.overheads import as_toml, judge_cudnn, judge_overheads, overheads_branch
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadData
from liveavatar_core.hardware.cards import find_card
from liveavatar_core.hardware.nvml import DriverState
from liveavatar_core.hardware.overheads import communicators, read_overheads
from liveavatar_core.recipes import named_recipe

GIB = 2**30
ULYSSES = Deployment(num_gpus_dit=8, ulysses_size=8)
PIPELINE = named_recipe("timestep_pipeline", 5).deployment


def test_the_published_figure_comes_out():
    """22.15 of the 23.65 GiB that torch sees, on one card and on five, where it was read."""
    card = find_card("RTX 4090")
    assert card.usable_gib == 22.15
    for name, cards in (("published_sharded", 5), ("published_replicated", 4), ("block_offload", 1)):
        assert card.usable_bytes_in(named_recipe(name, cards).deployment) == int(22.15 * GIB)


def test_nccl_takes_its_part_by_communicator_and_peer():
    """On NVLink 0.6 GiB a communicator; all-to-all over eight cards is the 4 GiB and more that were seen."""
    card = find_card("A100 80GB SXM")
    assert "nccl" not in card.overheads(Deployment())
    assert (communicators(Deployment()), communicators(ULYSSES), communicators(PIPELINE)) == (0, 1, 2)
    assert card.overheads(PIPELINE)["nccl"] == pytest.approx(2 * 0.6)
    assert card.overheads(ULYSSES)["nccl"] == pytest.approx(0.6 + 7 * 0.5)
    assert card.usable_bytes - card.usable_bytes_in(ULYSSES) == pytest.approx(4.1 * GIB, abs=GIB / 1000)


def test_every_figure_has_a_source(tmp_path):
    known = read_overheads()
    figures = [
        figure for table in (*known.architecture.values(), *known.link.values()) for figure in vars(table).values()
    ]
    assert len(figures) == 4 * 3 + 4 * 2
    assert all(figure.source for figure in figures)
    path = tmp_path / "overheads.toml"
    path.write_text("[architecture.ada]\ncontext_gib = 0.5\n[link]\n")
    with pytest.raises(BadData, match="ada"):
        read_overheads(path)


@pytest.mark.parametrize(
    ("version", "status"),
    [
        (90700, "good"),
        (90701, "good"),
        (90800, "bad"),
        (91002, "bad"),
        (91400, "bad"),
        (91500, "good"),
        (None, "skipped"),
    ],
)
def test_versions_of_cudnn_that_unfold_are_refused(version, status):
    found = judge_cudnn(TorchBuild(version="2.13.0+cu130", cuda="13.0", available=True, cudnn=version))
    assert found.status == status
    assert ("nvidia-cudnn-cu13>=9.15" in found.next_step) == (status == "bad")


def test_what_was_measured_is_judged_and_written_in_the_form_that_is_read():
    card = find_card("RTX 4090")
    found = {"context": 0.45, "cublas": 0.008, "cudnn": 0.9}
    assert judge_overheads(card, found).status == "good"
    assert judge_overheads(card, found | {"cudnn": 10.0}).status == "limited"
    text = as_toml(card, found)
    table = tomllib.loads(text)["architecture"]["ada"]
    assert {name: figure["value"] for name, figure in table.items()} == {
        f"{name}_gib": gib for name, gib in found.items()
    }


def test_without_a_card_nothing_is_measured():
    none = DriverState(version=None, cuda=None, missing={"driver": "not there"})
    group = overheads_branch(none, TorchBuild(version="2.13.0+cpu", cuda=None, available=False))
    assert {result.status for result in group.results} == {"skipped"}
