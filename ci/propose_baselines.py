"""Take over of finished runs what is new or better: python -m ci.propose_baselines RECORD|FOLDER...

For a machine that measures but may not decide: what got worse is left for people, with its reason. Free of torch.
Exit status: 0, with one line for each case that was written; 2 where a record or baseline cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from liveavatar_core.errors import BadInput, LiveAvatarError
from suites.harness.cases.tiers import Tier, read_tiers
from suites.harness.records.record import RunRecord, read_record
from suites.harness.verdicts.applied_settings import unapplied
from suites.harness.verdicts.baseline_update import updated_case, with_new_metrics, write_case
from suites.harness.verdicts.baselines import CaseBaseline, find_case
from suites.harness.verdicts.compare import compare
from suites.harness.verdicts.completeness import own_findings
from suites.harness.verdicts.index import index_key, read_index
from suites.harness.verdicts.verdict import Verdict, judge_outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the baselines; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ci.propose_baselines", description="Take over what is new or better."
    )
    parser.add_argument(
        "records", nargs="+", type=Path, metavar="RECORD|FOLDER", help="run records, or folders of them"
    )
    parser.add_argument("--baseline-dir", type=Path, default=Path("baselines"), metavar="DIR", help="(baselines)")
    parser.add_argument("--tiers", action="append", type=Path, default=[], metavar="FILE", help="more tiers")
    options = parser.parse_args(arguments)
    try:
        tiers = read_tiers(*options.tiers)
        for path in _record_files(options.records):
            propose(read_record(path), tiers, options.baseline_dir)
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def propose(record: RunRecord, tiers: dict[str, Tier], baseline_dir: Path) -> None:
    """Write what `record` has new or better, if it ended as its tier says."""
    where = f"{record.tier}/{record.case} on {record.hardware} cards"
    tier = tiers.get(record.tier)
    if tier is None or judge_outcome(record, tier.case(record.case).expect) is not None:
        print(f"{where}: left alone, it did not end as its tier says")
        return
    old = find_case(baseline_dir, record)
    new = proposed(record, old, read_index(baseline_dir).get(index_key(record)))
    if new is not None and new != old:
        print(f"{where}: {write_case(baseline_dir, record, new)}")


def proposed(record: RunRecord, old: CaseBaseline | None, listed: Collection[str] | None = None) -> CaseBaseline | None:
    """The case as it should be reviewed; None: there is nothing to gain, or something that people must decide.

    `listed`: metrics of which the index says that they have a baseline.
    """
    if own_findings(record) or unapplied(record):
        return None
    verdicts = {finding.verdict for finding in compare(record, old, listed)}
    if verdicts == {Verdict.NEEDS_BASELINE}:
        return with_new_metrics(old, record)
    if Verdict.IMPROVED in verdicts and verdicts <= {Verdict.IMPROVED, Verdict.NEEDS_BASELINE}:
        try:
            return updated_case(old, record, None)
        except BadInput:
            return None  # something else got worse within its tolerance: an update would need a reason
    return None


def _record_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path} is not there", "give run records, or folders of them")
        yield from sorted(path.rglob("*.json")) if path.is_dir() else (path,)


if __name__ == "__main__":
    sys.exit(main())
