"""The README's table of remedies, from run records and the equivalence tests' JUnit file. Free of torch.

pytest suites/tiers -k remedies --hardware=simulated --report-dir=report
pytest tests/parallel/test_equivalence.py -k recipe --junitxml=report/equivalence.xml
python -m suites.tiers.remedies_table --report-dir report
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from liveavatar_core.errors import GIB, BadInput
from suites.harness.cases.tiers import Case, Tier, read_tiers
from suites.harness.records.record import RunRecord, read_record
from suites.harness.report.generated_blocks import replaced

NAME = "remedies-table"
HEAD = (
    "| cards | recipe | peak GiB | headroom GiB | retries | predicted s a clip | against one process, unrounded |",
    "|---|---|---|---|---|---|---|",
)
PUBLISHED = ("published_sharded", "published_replicated", "single")
README = Path(__file__).parents[2] / "README.md"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A remedy and what came of it."""

    cards: str
    """The cards: how many of which."""
    recipe: str
    """Name of the layout, in liveavatar_core.recipes."""
    peak_gib: float
    """GiB allocated at the fullest moment of the fullest card."""
    headroom_gib: float
    """GiB left below what is usable on that card."""
    retries: int
    """How often a card's allocator gives cached segments back to make room."""
    seconds: float
    """Predicted seconds of a clip."""
    equivalence: str
    """How close the latents of a small model come to those of one process, unrounded."""

    def __str__(self) -> str:
        numbers = f"{self.peak_gib:.2f} | {self.headroom_gib:.2f} | {self.retries} | {self.seconds:.1f}"
        return f"| {self.cards} | `{self.recipe}` | {numbers} | {self.equivalence} |"


def remedies() -> Iterator[tuple[Tier, Case]]:
    """Every case that is a remedy, in the order of tiers.toml."""
    for tier in read_tiers().values():
        remedied = {case.recipe for case in tier.cases} & set(PUBLISHED)
        for case in tier.cases:
            if remedied and case.recipe not in PUBLISHED and case.expect.outcome == "pass":
                yield tier, case


def read_equivalence(path: Path) -> dict[str, str]:
    """What the equivalence tests found, by recipe. Raises BadInput where there is no such file."""
    if not path.is_file():
        raise BadInput(f"{path} is not there", f"pytest tests/parallel/test_equivalence.py -k recipe --junitxml={path}")
    found = {}
    for test in ElementTree.parse(path).iter("testcase"):
        name = re.fullmatch(r".*\[recipe-(\w+)\]", test.get("name", ""))
        if name and test.find("failure") is None and test.find("error") is None:
            decibels = next((p.get("value") for p in test.iter("property") if p.get("name") == "psnr_db"), None)
            found[name[1]] = f"PSNR {decibels} dB" if decibels else "equal (1e-5)"
    return found


def rows(report_dir: Path) -> Iterator[Row]:
    """A row a remedy. Raises BadInput where its record is missing or tells of another outcome."""
    equivalence = read_equivalence(report_dir / "equivalence.xml")
    for tier, case in remedies():
        path = report_dir / "records" / f"{tier.name}.{case.name}.simulated.json"
        record = read_record(path) if path.is_file() else None
        if record is None or record.outcome != "pass":
            raise BadInput(f"{path} is no record of a pass", "pytest suites/tiers -k remedies --hardware=simulated")
        yield _row(tier, case, record, equivalence.get(case.recipe, "not measured"))


def _row(tier: Tier, case: Case, record: RunRecord, equivalence: str) -> Row:
    peak = max(phase.allocated_bytes or 0 for phase in record.memory)
    assert record.timing.predicted_seconds_per_clip is not None
    return Row(
        cards=f"{tier.cards} x {tier.card}",
        recipe=case.recipe,
        peak_gib=peak / GIB,
        headroom_gib=((record.limit_bytes or tier.limit_bytes) - peak) / GIB,
        retries=record.retries,
        seconds=record.timing.predicted_seconds_per_clip,
        equivalence=equivalence,
    )


def main() -> None:
    """Write the table of remedies into the README."""
    parser = argparse.ArgumentParser(description="Write the README's table of remedies.")
    parser.add_argument("--report-dir", type=Path, default=Path("report"), help="records and equivalence.xml")
    table = "\n".join((*HEAD, *map(str, rows(parser.parse_args().report_dir))))
    README.write_text(replaced(README.read_text(), NAME, table))


if __name__ == "__main__":
    main()
