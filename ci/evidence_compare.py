"""Predicted against measured: for each rank and phase, the peaks of a simulation beside those of a real card.

    python -m ci.evidence_compare [--report-dir DIR]

Exit status 1 where an allocated peak is more than 2 % from its prediction, or nothing can be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from liveavatar_core.errors import GIB, LiveAvatarError
from suites.harness.records.measurements import PhaseMemory
from suites.harness.records.record import RunRecord, read_record

ALLOWED = 0.02
"""Share by which a prediction may be off."""
MEASURED = ("physical", "partitioned")


@dataclass(frozen=True, kw_only=True)
class ComparedReading:
    """One rank in one phase of one case."""

    where: str
    """Tier, case, hardware mode, rank and phase."""
    predicted: int
    """Bytes allocated, simulated."""
    measured: int
    """Bytes allocated on the card."""
    reserved: int | None
    """Bytes that the allocator kept there."""
    used: int | None
    """Bytes in use on the card, as NVML told."""

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what was measured."""
        return (self.predicted - self.measured) / self.measured

    def __str__(self) -> str:
        sizes = (f"{'-' if size is None else f'{size / GIB:.2f}':>9}" for size in (self.reserved, self.used))
        mark = "" if abs(self.error) <= ALLOWED else "  over 2 %"
        return (
            f"{self.where:<58}{self.predicted / GIB:>10.2f}{self.measured / GIB:>10.2f}{''.join(sizes)}"
            f"{self.error:>+8.1%}{mark}"
        )


HEADER = f"{'GiB':<58}{'predicted':>10}{'measured':>10}{'reserved':>9}{'device':>9}{'error':>8}"


def rows(records: list[RunRecord]) -> Iterator[ComparedReading]:
    """Every rank and phase that was both simulated and measured."""
    predicted = {(each.tier, each.case): each for each in records if each.hardware == "simulated"}
    for record in records:
        twin = predicted.get((record.tier, record.case))
        if record.hardware in MEASURED and twin is not None:
            yield from _rows_of(record, twin)


def _rows_of(record: RunRecord, twin: RunRecord) -> Iterator[ComparedReading]:
    expected = {(each.rank, each.phase): each for each in twin.memory}
    for each in record.memory:
        other = expected.get((each.rank, each.phase))
        if other is not None and each.allocated_bytes and other.allocated_bytes is not None:
            yield _row(record, each, each.allocated_bytes, other.allocated_bytes)


def _row(record: RunRecord, reading: PhaseMemory, measured: int, predicted: int) -> ComparedReading:
    return ComparedReading(
        where=f"{record.tier}/{record.case} {record.hardware} rank {reading.rank} {reading.phase}",
        predicted=predicted,
        measured=measured,
        reserved=reading.reserved_bytes,
        used=reading.device_used_bytes,
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report-dir", type=Path, default=Path("report"), help="where the records are (report)")
    folder = parser.parse_args(arguments).report_dir / "records"
    try:
        found = list(rows([read_record(path) for path in sorted(folder.glob("*.json"))]))
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    if not found:
        print(f"{folder}: no case was both simulated and measured\nnext: ci/evidence.sh tiers predict", file=sys.stderr)
        return 1
    print("\n".join([HEADER, *map(str, found)]))
    return int(any(abs(row.error) > ALLOWED for row in found))


if __name__ == "__main__":
    sys.exit(main())
