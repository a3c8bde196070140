"""A repository of baselines in a folder, with real commits."""

import subprocess
from dataclasses import replace
from datetime import date

from suites.harness.verdicts.baselines import BaselineFile, CaseBaseline, MetricBaseline, Provenance, render
from suites.harness.verdicts.index import render_index

FIVE = "simulated-rtx4090x5/gpu5x24.toml"
MACHINE = {"hardware": "simulated", "card": "RTX 4090", "cards": 5}
EARLIER = Provenance(commit="1f0c2ab", date=date(2026, 11, 20), torch="2.13.0", run="nightly/412")
LATER = replace(EARLIER, commit="2f0c2ab", run="nightly/413")


def case(**changes) -> CaseBaseline:
    """20 GiB and 22 seconds, each with 1 % of tolerance."""
    values = {
        "recipe": "9c41e07b",
        "outcome": "pass",
        "measured": EARLIER,
        "metrics": {
            "peak_vram_gib": MetricBaseline(value=20.0, rel=0.01, abs=0.1, limit=21.5),
            "predicted_seconds_per_clip": MetricBaseline(value=22.0, rel=0.01, abs=0.1),
        },
    }
    return CaseBaseline(**(values | changes))


def moved(case: CaseBaseline, metric: str, **changes) -> CaseBaseline:
    """`case` with one metric changed."""
    return replace(case, metrics=case.metrics | {metric: replace(case.metrics[metric], **changes)})


class Repository:
    """A git repository whose commits hold baselines and nothing else."""

    def __init__(self, folder):
        self.folder = folder
        self.git("init", "-q")
        (folder / "README.md").write_text("empty\n")
        self.commit()

    def git(self, *arguments):
        identity = ("-c", "user.name=Lab", "-c", "user.email=lab@example.org", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(self.folder), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self):
        self.git("add", "-A")
        self.git("commit", "-qm", "baselines", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def write(self, text, path=FIVE):
        file = self.folder / "baselines" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return self.commit()

    def put(self, path=FIVE, machine=MACHINE, **cases):
        """Commit these cases in one file; returns the commit."""
        listed = {f"{path.removesuffix('.toml')}/{name}": tuple(sorted(case.metrics)) for name, case in cases.items()}
        self.write_index(listed)
        return self.write(render(BaselineFile(machine=machine, cases=cases)), path)

    def write_index(self, index):
        (self.folder / "baselines").mkdir(exist_ok=True)
        (self.folder / "baselines/index.toml").write_text(render_index(index))
