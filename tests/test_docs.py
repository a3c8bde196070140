"""Every command in the documents runs, or stands in a list with the reason why it does not run here."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from waiting import PATIENCE

from liveavatar_core.cli.main import make_parser
from suites.harness.cases.tiers import read_tiers

ROOT = Path(__file__).parents[1]
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "baselines/README.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").glob("*.md"))]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
GLOSSARY = (ROOT / "docs/glossary.md").read_text()

EXPENSIVE = {
    r"make cuda-dry-run\b": "installs 6 GB and executes every tier; tests/ci/test_cuda_dry_run.py runs a part",
    r"make (conformance|test|setup|quality|fuzz|lint)\b": "takes minutes; continuous integration runs just that",
    r"\S*python -m pytest -m gpu1x48example": "is of a tier that the page adds: test_a_newcomer_adds_a_card_and_a_tier",
    r"\S*python -m liveavatar_core fit --cards 'Example": "is of a card that the page adds, and simulates ten layouts",
    r"\S*python -m pytest suites/tiers -k remedies": "simulates eleven full-size runs",
    r"\S*python -m pytest tests/parallel/test_equivalence.py": "make test runs it, and it takes a minute",
    r"\S*python -m suites.tiers.remedies_table": "takes what the two commands before it leave",
    r"\S*pytest .*-m gpu\w+": "simulates a full-size model for minutes, or needs cards",
    r"\S*pytest suites/quality": "makes videos for a minute; continuous integration runs it",
    r"\S*pytest (suites/fuzz|tests/test_fuzz.py)": "tries recipes for minutes; tests/test_fuzz.py runs a rule so",
    r"\S*pytest -m published": "simulates eleven full-size runs",
    r"\S*python -m suites.published.claims_table$": "simulates eleven full-size runs",
    r"\S*python -m liveavatar_core generate .*--ckpt_dir ckpt": "needs a checkpoint",
    r"\S*python -m benchmarks.load_rate": "takes a minute; tests/weights/test_loading_files.py runs its parts",
    r"\S*pytest -m cuda tests/cuda": "needs a card; tests/cuda runs with LIVE_AVATAR_CARD=cpu where there is none",
    r"git (checkout|add|commit)": "changes the checkout",
    r"\S*pytest tests/harness/test_faults.py": "make test runs them, and they take a minute",
    r"\S*python -m tiny_avatar.training.evaluate": "needs espeak-ng; tests/test_tiny_avatar.py does the same",
    r"\S*python -m suites.harness.report.compare_runs": "needs two sessions; tests/report/test_comparison.py runs it",
    r"\S*python -m suites.harness.report.(fleet|html_trends)": "needs runs; tests of Slurm and histories make some",
    r"ci/slurm/fleet.sh": "needs Slurm; tests/ci/test_slurm.py runs the script",
    r"(pip install|liveavatar|pytest --pyargs)": "is of an installed package; tests/test_packaging.py installs one",
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
def tiers():
    """Names of all tiers, that of the page on adding one too."""
    return {*read_tiers(), *tomllib.loads(added()["suites/harness/cases/tiers.toml"])}


@pytest.mark.parametrize("command", [each for each in FOUND if "pytest " in each.values[0]])
def test_options_and_markers_are_known(command, pytest_help, tiers):
    words = shlex.split(command.partition("pytest ")[2])
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    assert [option for option in options if option not in pytest_help] == []
    markers = [word for flag, word in pairwise(words) if flag == "-m"]
    assert set(markers) <= {*tiers, "published", "nightly", "cuda"}


def added():
    """What the page on adding things puts into files of the repository, by their path."""
    blocks = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    return dict(blocks)


def commit(folder):
    """Make `folder` a repository whose only commit is what lies in it."""
    git = ["git", "-c", "user.name=newcomer", "-c", "user.email=newcomer@example.org", "-C", str(folder)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a card and a tier"]):
        subprocess.run([*git, *words], check=True)


def test_a_newcomer_adds_a_card_and_a_tier(tmp_path):
    """The page's blocks, put where it says, and its last command: both modes pass and have baselines then."""
    copied = ("liveavatar_core", "suites", "tiny_avatar", "assets", "baselines")
    for name in copied:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    for path, text in added().items():
        with (tmp_path / path).open("a", encoding="utf-8") as file:
            file.write(f"\n{text}" if path.endswith(".toml") else text)
    commit(tmp_path)
    *_, command = (line for line in commands(ROOT / "docs/architecture.md") if "gpu1x48example" in line)
    line = command.replace(".venv/bin/python", shlex.quote(sys.executable))
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "2 passed" in done.stdout
    recorded = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("baselines/*/gpu1x48example.toml"))
    assert recorded == [f"baselines/{it}/gpu1x48example.toml" for it in ("miniature", "simulated-example48gbx1")]


def rooms():
    """The folders of the page's tree."""
    tree = re.search(r"^## The rooms\n\n```text\n(.*?)^```", ARCHITECTURE, re.DOTALL | re.MULTILINE)[1]
    parents = []
    for line in tree.splitlines():
        spaces, name = re.match(r"( *)(\w+)/", line).groups()
        parents = [*parents[: len(spaces) // 2], name]
        yield "/".join(parents)


def test_every_room_is_in_the_tree_and_no_other():
    named = set(rooms())
    assert [room for room in named if not (ROOT / room).is_dir()] == []
    packages = ("liveavatar_core", "suites", "tiny_avatar")
    there = {str(path.parent.relative_to(ROOT)) for name in packages for path in (ROOT / name).rglob("*.py")}
    assert there - named == set()


WORDS = re.findall(
    r"^\| ([^|]+?) \| [^|]+ \| ([^|]+) \|$", GLOSSARY.replace("| word | meaning | where |", ""), re.MULTILINE
)


@pytest.mark.parametrize(("word", "where"), [pytest.param(*row, id=row[0]) for row in WORDS])
def test_the_glossary_says_where_a_word_lives(word, where):
    """A file, then names in it."""
    path, *names = re.findall(r"`([^`]+)`", where)
    for each in [path, *names]:
        if "/" in each:
            text = (ROOT / each).read_text(encoding="utf-8")
        else:
            assert re.search(rf"\b{each}\b", text), f"{each} is not in it"


def test_the_glossary_is_in_order():
    for section in GLOSSARY.split("\n## "):
        words = [word.casefold() for word in re.findall(r"^\| ([^|]+?) \|", section, re.MULTILINE)[1:]]
        assert words == sorted(words)
    assert len({word for word, _ in WORDS}) == len(WORDS) > 40


@pytest.mark.parametrize("command", [each for each in FOUND if " generate " in each.values[0]])
def test_options_of_generate_are_known(command):
    words = shlex.split(command.replace("...", "--image a --audio b --prompt c"))
    make_parser().parse_args(words[words.index("generate") :])


def test_every_reason_is_needed():
    idle = [pattern for pattern in EXPENSIVE if not any(re.match(pattern, each.values[0]) for each in FOUND)]
    assert idle == []


def test_documents_name_files_that_are_there():
    """Paths in backticks that begin with a folder of the repository."""
    folders = "liveavatar_core|suites|tiny_avatar|tests|ci|assets|docs|baselines|benchmarks|.github"
    for page in PAGES:
        for path in re.findall(rf"`((?:{folders})/[\w/.-]+)`", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_pages_link_to_pages_that_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


MADE = re.compile(r"--(?:history|report-html|junit-xml|save_file|ckpt_dir|html|tiers)[= ](\S+)")
"""Options of commands that name what a reader makes, or brings, in the checkout."""


def test_git_leaves_out_what_the_documents_make():
    """Else the next run is of a tree with changes, or a checkpoint is committed by accident."""
    made = {name for each in FOUND for name in MADE.findall(each.values[0]) if not name.startswith("assets/")}
    assert {"history", "report/report.html", "ckpt/Wan2.2-S2V-14B", "talks.mp4"} <= made
    made.add("lab.toml")  # which docs/architecture.md has the reader write
    ignored = subprocess.run(["git", "check-ignore", *made], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made - set(ignored.stdout.split()) == set()
