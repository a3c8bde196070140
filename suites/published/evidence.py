"""Run records for published figures: those at hand of this very commit, else made now."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from liveavatar_core.errors import BadData
from suites.harness.cases.tiers import Case, Tier
from suites.harness.hardware import mode_named
from suites.harness.records.build import provenance
from suites.harness.records.record import RunRecord, read_record, run_name
from suites.published.figures import find_run


class Evidence:
    """The run records that answers rest on: a function of `TIER.CASE` and a hardware mode."""

    def __init__(self, report_dir: Path) -> None:
        """`report_dir`: where records are, and where new ones go."""
        self._report_dir = report_dir
        self._commit = provenance()["commit"]
        self._known: dict[tuple[str, str], RunRecord] = {}

    def __call__(self, run: str, hardware: str) -> RunRecord:
        """Read it, or run it, which takes up to minutes."""
        key = run, hardware
        if key not in self._known:
            tier, case = find_run(run)
            self._known[key] = self._at_hand(tier, case, hardware) or self._run(tier, case, hardware)
        return self._known[key]

    def _at_hand(self, tier: Tier, case: Case, hardware: str) -> RunRecord | None:
        """The record there is, if it is of this commit without changes; of any other, nobody knows what it says."""
        path = self._report_dir / "records" / f"{run_name(tier.name, case.name, hardware)}.json"
        try:
            record = read_record(path)
        except BadData:
            return None
        unchanged = self._commit is not None and not self._commit.endswith("+")
        same_recipe = hardware != "simulated" or record.recipe.hash == tier.recipe(case).hash
        return record if unchanged and record.commit == self._commit and same_recipe else None

    def _run(self, tier: Tier, case: Case, hardware: str) -> RunRecord:
        name = run_name(tier.name, case.name, hardware)
        print(f"{hardware}: {tier.name}.{case.name} ...", file=sys.stderr, flush=True)
        folder = self._report_dir / "runs" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        record = mode_named(hardware).run(tier, case, folder)
        record.write(self._report_dir)
        return record
