"""A lab in a folder: sessions of pytest whose hardware modes return what a test put there.

The stand-in for a hardware mode is there to test the judge, and nothing else.
"""

from pathlib import Path

from suites.harness.records.record import RunRecord

ROOT = Path(__file__).parents[2]

CONFTEST = """
import sys, types
from pathlib import Path
from suites.harness.records.record import RunRecord

pytest_plugins = ["suites.harness.pytest_plugin.plugin"]
FOLDER = Path(__file__).parent

def install(mode_name):
    class Mode:
        name = mode_name
        def why_not(self, tier):
            return None if (FOLDER / f"{mode_name}.ok").exists() else f"no {mode_name} cards"
        def unsupported(self, tier, case):
            lacks = FOLDER / f"{mode_name}.lacks"
            return lacks.read_text() if lacks.exists() else None
        def run(self, tier, case, folder, clock):
            assert folder.is_dir() and not list(folder.iterdir())
            (folder / "log").write_text("log")
            runs = FOLDER / f"{tier.name}.{case.name}.runs"
            with runs.open("a") as file:
                file.write("x")
            paths = sorted(FOLDER.glob(f"{tier.name}.{case.name}.*.canned"))
            text = paths[min(runs.stat().st_size, len(paths)) - 1].read_text()
            return RunRecord.from_json(text)
    module = types.ModuleType(f"suites.harness.hardware.{mode_name}")
    setattr(module, f"{mode_name.capitalize()}Mode", Mode)
    sys.modules[module.__name__] = module

for mode in ("physical", "partitioned", "simulated", "miniature"):
    install(mode)
"""

TEST = """
import pytest
pytestmark = pytest.mark.{tier}

@pytest.mark.parametrize("case", {cases})
def test_case(tier, case):
    tier.check(case)
"""


class Lab:
    """A folder with canned runs, and sessions in it."""

    def __init__(self, pytester):
        self.pytester = pytester
        self.folder = pytester.path
        pytester.makeconftest(CONFTEST)
        (self.folder / "baselines").mkdir()  # else those that ship would judge
        self.offer("simulated")
        self.tests("gpu5x24", "published_sharded")

    def offer(self, mode):
        (self.folder / f"{mode}.ok").write_text("")

    def tests(self, tier, *cases):
        (self.folder / f"test_{tier}.py").write_text(TEST.format(tier=tier, cases=list(cases)))

    def put(self, *records: RunRecord):
        """What the case's first, second, … run returns; the last one again and again."""
        for old in self.folder.glob(f"{records[0].tier}.{records[0].case}.*"):
            old.unlink()
        for index, record in enumerate(records):
            name = f"{record.tier}.{record.case}.{index}.canned"
            (self.folder / name).write_text(record.to_json())

    def run(self, *options):
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)

    def run_apart(self, *options):
        """In a process of its own: pytester cannot report on a session that ends before it starts."""
        for name in ("CI", "PYTEST_XDIST_WORKER"):  # there, pytest prints failures once more; benchmarks are off
            self.pytester._monkeypatch.delenv(name, raising=False)
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)

    def baseline(self, record: RunRecord, *options):
        """Make `record` the baseline."""
        self.put(record)
        assert self.run("--baseline-update", *options).ret == 0

    @property
    def files(self):
        return sorted(self.folder.glob("baselines/*/*.toml"))


def said(result) -> str:
    """What a session wrote."""
    return result.stdout.str() + result.stderr.str()
