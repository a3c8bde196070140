"""Numbers as a reader wants them."""

from __future__ import annotations

from collections.abc import Sequence

from liveavatar_core.errors import GIB
from suites.harness.records.record import RunRecord

MIB = 1024**2
NAMES = {
    "oom": "out of memory",
    "host-oom": "out of host memory",
    "unsharded_parameters": "gathered parameters",
    "kv_cache": "KV cache",
    "decoder_cache": "decoder cache",
}
"""Words of the record that read better in other words."""


def fitting(record: RunRecord) -> str:
    """How a run that passed fits."""
    return "fits with retries" if record.retries else "fits"


def name_of(word: str) -> str:
    """A category or an outcome, for people."""
    return NAMES.get(word, word.replace("_", " "))


def unit_of(record: RunRecord) -> tuple[int, str]:
    """Bytes and name of the unit in which this run's sizes read well."""
    size = record.limit_bytes or record.peak_bytes() or GIB
    return (GIB, "GiB") if size >= GIB else (MIB, "MiB")


def size_text(record: RunRecord, size: int | None) -> str:
    """Bytes in the run's unit."""
    unit, name = unit_of(record)
    return "no reading" if size is None else f"{size / unit:.2f} {name}"


def ranks_text(ranks: Sequence[int]) -> str:
    """`rank 2`, `ranks 0–3`, `ranks 0, 2`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if list(ranks) == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]}–{ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks))}"
