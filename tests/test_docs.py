"""Every command in the documents runs, or stands in a list with the reason why it does not run here."""

import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from waiting import PATIENCE

from liveavatar_core.cli.main import make_parser
from suites.harness.cases.tiers import read_tiers

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "baselines/README.md", *sorted((ROOT / "docs").glob("*.md"))]

EXPENSIVE = {
    r"make (conformance|test|setup)\b": "takes minutes; continuous integration runs just that",
    r"\S*pytest .*-m gpu\w+(?!.*--collect-only)": "simulates a full-size model for minutes, or needs cards",
    r"\S*pytest --tiers=lab.toml": "is of a lab's file; tests/harness runs such a file",
    r"\S*pytest suites/quality": "makes films for a minute; continuous integration runs it",
    r"\S*pytest (suites/fuzz|tests/test_fuzz.py)": "tries recipes for minutes; tests/test_fuzz.py runs a rule so",
    r"\S*pytest -m published": "simulates eleven full-size runs",
    r"\S*python -m suites.published.claims_table$": "simulates eleven full-size runs",
    r"\S*python -m liveavatar_core generate .*--ckpt_dir": "needs a checkpoint",
    r"\S*pytest tests/harness/test_faults.py": "make test runs them, and they take a minute",
    r"\S*python -m tiny_avatar.training.evaluate": "needs espeak-ng; tests/test_tiny_avatar.py does the same",
    r"sbatch ": "needs Slurm; tests/ci/test_slurm.py runs the script",
    r"\S*python -m ci.propose_baselines": "rewrites baselines; tests/ci/test_propose_baselines.py runs it",
}
"""What is not run, as a pattern of the whole command, and why."""


def commands(page):
    """The commands of a page's shell blocks, in one line each, without comments."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    text = "\n".join(body for language, body in blocks if language in ("", "sh"))
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield shlex.join(words)


FOUND = [pytest.param(command, id=f"{page.stem}-{command}") for page in PAGES for command in commands(page)]
OTHER_NAMES = re.compile(r" --save_file \S+")
DIFFERENT = [*{OTHER_NAMES.sub("", each.values[0]): each for each in reversed(FOUND)}.values()][::-1]
"""What is more than the name of its output is run once."""


def why_not(command):
    return next((reason for pattern, reason in EXPENSIVE.items() if re.match(pattern, command)), None)


def run(command):
    line = re.sub(r"^pytest\b", ".venv/bin/pytest", command)
    return subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("command", DIFFERENT)
def test_runs(command):
    if reason := why_not(command):
        pytest.skip(reason)
    if "HEAD~1" in command and run("git rev-parse --verify --quiet HEAD~1").returncode:
        pytest.skip("this clone has no commit before its last")
    done = run(command)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]


@pytest.fixture(scope="module")
def pytest_help():
    return run("pytest --help").stdout


@pytest.fixture
def tiers(tmp_path):
    """All tiers, that of the page on adding one too."""
    text = re.search(r"# lab.toml\n(.*?)```", (ROOT / "docs/cards-and-tiers.md").read_text(), re.DOTALL)[1]
    (tmp_path / "lab.toml").write_text(text)
    return read_tiers(tmp_path / "lab.toml")


@pytest.mark.parametrize("command", [each for each in FOUND if "pytest " in each.values[0]])
def test_options_and_markers_are_known(command, pytest_help, tiers):
    words = shlex.split(command)
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    assert [option for option in options if option not in pytest_help] == []
    markers = [word for flag, word in pairwise(words) if flag == "-m"]
    assert set(markers) <= {*tiers, "published", "nightly"}


def test_the_tier_that_the_page_adds_is_one(tiers):
    tier = tiers["lab2x48"]
    assert [tier.recipe(case).deployment.num_cards for case in tier.cases] == [2]


@pytest.mark.parametrize("command", [each for each in FOUND if " generate " in each.values[0]])
def test_options_of_generate_are_known(command):
    words = shlex.split(command.replace("...", "--image a --audio b --prompt c"))
    make_parser().parse_args(words[words.index("generate") :])


def test_every_reason_is_needed():
    idle = [pattern for pattern in EXPENSIVE if not any(re.match(pattern, each.values[0]) for each in FOUND)]
    assert idle == []


def test_documents_name_files_that_are_there():
    """Paths in backticks that begin with a folder of the repository."""
    folders = "liveavatar_core|suites|tests|ci|assets|docs|baselines"
    for page in PAGES:
        for path in re.findall(rf"`((?:{folders})/[\w/.-]+)`", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_pages_link_to_pages_that_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
