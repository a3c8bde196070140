"""The workflow files: what actionlint says of them, and what must never be in them."""

import subprocess
from pathlib import Path

import pytest
import yaml
from waiting import PATIENCE

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
LINT = ROOT / "ci/actionlint.sh"
NOT_TO_BE_HAD = 3

BROKEN = """
on: push
jobs:
  one:
    runs-on: ubuntu-latest
    steps:
      - run: echo ${{ github.nothing }}
"""


def actionlint(*files):
    done = subprocess.run([LINT, *files], capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode == NOT_TO_BE_HAD:
        pytest.skip(done.stderr)
    return done


def jobs(name):
    return yaml.safe_load((ROOT / ".github/workflows" / name).read_text())["jobs"]


def commands(job):
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_actionlint_has_no_objections():
    done = actionlint(*WORKFLOWS)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_actionlint_is_awake(tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(BROKEN)
    done = actionlint(broken)
    assert done.returncode == 1
    assert 'property "nothing" is not defined' in done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_shell_of_every_step_is_shell(path):
    for job in jobs(path.name).values():
        script = commands(job).replace("${{", "").replace("}}", "")
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nothing_a_stranger_writes_becomes_shell(path):
    """Titles, branch names and inputs reach a shell as environment variables alone."""
    for job in jobs(path.name).values():
        assert "${{" not in commands(job)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_says_what_it_may_and_when_it_ends(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in jobs(path.name).values())


def test_a_pull_request_runs_what_a_person_would():
    found = jobs("pull-request.yml")
    assert commands(found["checks"]).strip() == "make test"
    assert commands(found["conformance"]).strip() == "make conformance"
    assert commands(found["quality"]).strip() == "make quality"
    diff = commands(found["baselines"])
    assert "python -m ci.baseline_diff" in diff
    assert "$GITHUB_STEP_SUMMARY" in diff


def test_nightly_demands_its_cards_and_keeps_records_even_when_it_fails():
    tier = jobs("nightly.yml")["tier"]
    assert tier["runs-on"] == ["self-hosted", "linux", "${{ matrix.tier }}"]
    assert "--require-hardware" in commands(tier)
    upload = next(step for step in tier["steps"] if "upload-artifact" in step.get("uses", ""))
    assert upload["if"] == "always()"


def test_nightly_makes_the_long_videos():
    assert "pytest suites/quality -m nightly" in commands(jobs("nightly.yml")["quality"])


def test_nightly_executes_what_a_card_would():
    assert commands(jobs("nightly.yml")["cuda-dry-run"]).strip() == "make cuda-dry-run"


def test_nightly_proposes_and_never_merges():
    text = (ROOT / ".github/workflows/nightly.yml").read_text()
    assert "gh pr create" in text
    assert "gh pr merge" not in text
    assert "auto-merge" not in text


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """A repository with one earlier night of a tier, a clone of it, and the variables of a runner."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for key, value in {"NAME": "n", "EMAIL": "n@example.org"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)
    variables = {"TIER": "gpu1x80", "GITHUB_RUN_NUMBER": "2"}
    variables |= {"GITHUB_SERVER_URL": f"file://{tmp_path}", "GITHUB_REPOSITORY": "origin"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run_in(tmp_path, "git init --quiet --initial-branch main origin")
    write = "echo first > gpu1x80.jsonl && git add . && git commit --quiet -m one && git checkout --quiet -b main"
    run_in(tmp_path / "origin", "git checkout --quiet --orphan nightly-history && " + write)
    run_in(tmp_path, "git clone --quiet --branch main origin work")
    return tmp_path / "origin"


def run_in(folder, script):
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def step(job, word):
    return next(each["run"] for each in jobs("nightly.yml")[job]["steps"] if word in each.get("name", ""))


@pytest.mark.parametrize(("name", "kept"), [("gpu1x80", "first\nsecond\n"), ("gpu9x99", "second\n")])
def test_a_night_sees_those_before_it_and_is_added_once(origin, monkeypatch, name, kept):
    """A tier that has run before, and one that has not."""
    monkeypatch.setenv("TIER", name)
    work = origin.parent / "work"
    run_in(work, step("tier", "earlier nights"))
    history = work / f"report/{name}/history.jsonl"
    assert history.read_text() == kept.removesuffix("second\n")
    history.write_text(history.read_text() + "second\n")  # as the session does
    run_in(work, step("history", "nightly-history"))
    found = subprocess.run(
        ["git", "show", f"nightly-history:{name}.jsonl"], cwd=origin, capture_output=True, text=True, check=True
    )
    assert found.stdout == kept
