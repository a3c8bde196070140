"""A checkpoint in files is loaded by real processes: each reads what it holds, and host memory holds nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load_rate import Loading, load_in_processes, write_model

LAYERS = 2
BESIDE = 64 * 1024**2
"""Bytes for what is no weight: modules, libraries that loading imports, buffers that files are read through."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("ckpt") / "Wan2.2-S2V-14B"
    return folder, write_model(folder, LAYERS)


@pytest.fixture(scope="module")
def whole(checkpoint: tuple[Path, int]) -> Loading:
    return load_in_processes(checkpoint[0], LAYERS, "none", 1)[0]


@pytest.mark.parametrize("shard", ["per_parameter", "flat"])
def test_two_ranks_read_every_byte_once(checkpoint, whole, shard):
    folder, size = checkpoint
    told = load_in_processes(folder, LAYERS, shard, 2)
    assert sum(each.read_bytes for each in told) == size
    assert max(each.read_bytes for each in told) <= 0.55 * size
    assert sum(each.checksum for each in told) == pytest.approx(whole.checksum, rel=1e-9)
    if shard == "per_parameter":  # flat sharding forms each unit as a whole
        assert max(each.grown_bytes for each in told) < 0.55 * size + BESIDE


def test_one_rank_holds_no_weight_twice(checkpoint, whole):
    assert whole.read_bytes == checkpoint[1]
    assert checkpoint[1] <= whole.held_bytes
    assert whole.grown_bytes < whole.held_bytes + BESIDE
    assert 0 < whole.read_seconds <= whole.seconds


def test_nor_where_the_files_hold_another_type(checkpoint, whole):
    (told,) = load_in_processes(checkpoint[0], LAYERS, "none", 1, "float32")
    assert told.read_bytes == checkpoint[1]
    assert told.grown_bytes < told.held_bytes + BESIDE
