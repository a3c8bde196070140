"""What the quality suite found, as a table: from its run records. Free of torch.

pytest suites/quality --hardware=miniature
pytest suites/quality --hardware=miniature -m nightly
python -m suites.quality.cases_table
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from liveavatar_core.errors import BadInput
from suites.harness.cases.tiers import Case, Tier, read_tiers
from suites.harness.records.record import RunRecord, read_record
from suites.harness.report.generated_blocks import replaced

NAME = "quality-table"
PAGE = Path(__file__).parents[2] / "docs/metrics.md"
TIERS = ("quality1", "quality2", "quality5")
COLUMNS = {
    "latent_cosine": "latent cosine",
    "psnr_db": "PSNR dB",
    "ssim": "SSIM",
    "sharpness_kept_ratio": "sharpness kept",
    "lip_sync_strength": "lip sync",
    "lip_sync_lag_ms": "lag ms",
    "colour_drift_levels_per_clip": "colour drift a clip",
    "identity_drift_per_clip": "identity drift a clip",
    "sharpness_loss_share_per_clip": "sharpness lost a clip",
}
"""Metrics in the order of the table, and their titles."""


def rows(report_dir: Path) -> Iterator[str]:
    """A row a case that ran. Raises BadInput where none did."""
    ran = [(tier, case, path) for tier, case in _cases() if (path := _path(report_dir, tier, case)).is_file()]
    if not ran:
        raise BadInput(f"{report_dir} has no record of the quality suite", "pytest suites/quality --hardware=miniature")
    yield _line(["processes", "case", "what differs", *COLUMNS.values()])
    yield _line(["---"] * (3 + len(COLUMNS)))
    for tier, case, path in ran:
        yield _line([str(tier.cards), f"`{case.name}`", case.expect.because, *_values(read_record(path))])


def _cases() -> Iterator[tuple[Tier, Case]]:
    tiers = read_tiers()
    return ((tiers[name], case) for name in TIERS for case in tiers[name].cases)


def _path(report_dir: Path, tier: Tier, case: Case) -> Path:
    return report_dir / "records" / f"{tier.name}.{case.name}.miniature.json"


def _values(record: RunRecord) -> Iterator[str]:
    """The numbers of a record for the table's columns; a dash where it says why there is none."""
    return (f"{record.quality[name]:.4g}" if name in record.quality else "–" for name in COLUMNS)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table, or write it into docs/metrics.md."""
    parser = argparse.ArgumentParser(description="What the quality suite found.")
    parser.add_argument("--report-dir", type=Path, default=Path("report"), help="where the records are")
    parser.add_argument("--write", action="store_true", help="put it into docs/metrics.md")
    options = parser.parse_args()
    table = "\n".join(rows(options.report_dir))
    if options.write:
        PAGE.write_text(replaced(PAGE.read_text(), NAME, table))
    else:
        print(table)


if __name__ == "__main__":
    main()
