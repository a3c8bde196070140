"""The workflow files: what actionlint says of them, and what must never be in them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from waiting import PATIENCE

from ci.change_comment import MARKER
from suites.harness.cases.tiers import read_tiers

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
    return "\n".join(step.get("run", "") for step in job.get("steps", ()))


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
    assert all("timeout-minutes" in job or "uses" in job for job in jobs(path.name).values())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_of_others_are_pinned_to_a_commit(path):
    used = [step["uses"] for job in jobs(path.name).values() for step in job.get("steps", ()) if "uses" in step]
    assert [each for each in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", each)] == []
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    assert "github-actions" in {each["package-ecosystem"] for each in updates}


def test_zizmor_has_no_objections():
    command = [Path(sys.executable).with_name("zizmor"), "--offline", "--no-progress", ROOT / ".github"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout


def test_a_pull_request_runs_what_a_person_would():
    found = jobs("pull-request.yml")
    assert commands(found["checks"]).strip() == "make test"
    assert commands(found["conformance"]).strip() == "make conformance"
    assert commands(found["quality"]).strip() == "make quality"


def test_a_pull_request_is_told_what_it_does_to_the_simulated_tiers():
    script = commands(jobs("pull-request.yml")["change"])
    assert script.count("pytest suites/tiers --hardware=simulated") == 2, "with the change, and before it"
    assert "python -m ci.change_comment" in script
    assert "$GITHUB_STEP_SUMMARY" in script
    assert MARKER in script, "an earlier comment is replaced"


def test_whatever_has_a_baseline_runs_at_night():
    night = jobs("nightly.yml")
    made = "\n".join(recipe(target) for target in night["anywhere"]["strategy"]["matrix"]["target"])
    baselines = {path.stem for path in (ROOT / "baselines").glob("*/*.toml")}
    assert "pytest suites/tiers --hardware=simulated,miniature --require-baselines" in made
    assert baselines <= set(read_tiers()), "and the suites run every tier of tiers.toml"
    for command in (
        "suites/quality -m nightly",
        "-m published",
        "--fuzz-profile=nightly",
        "tests -m nightly",
        "mutants",
    ):
        assert command in made


def recipe(target):
    """What make runs for a target, its needs left out."""
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", "-o", ".cuda-dry-run/.ready", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_tier_runs_on_its_cards_at_night():
    text = (ROOT / ".github/workflows/nightly.yml").read_text()
    lists = {tuple(json.loads(found)) for found in re.findall(r"\[\"gpu[^]]*\]", text)}
    assert lists == {tuple(sorted(name for name in read_tiers() if name.startswith("gpu")))}


def test_a_tier_demands_its_cards_and_keeps_records_even_when_it_fails():
    run = jobs("tier.yml")["run"]
    assert run["runs-on"] == ["self-hosted", "linux", "${{ inputs.tier }}"]
    assert "--require-hardware" in commands(run)
    upload = next(step for step in run["steps"] if "upload-artifact" in step.get("uses", ""))
    assert upload["if"] == "always()"


def test_a_tier_whose_runner_is_away_holds_back_no_other_and_no_other_night():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tier.yml").read_text())
    assert workflow["concurrency"] == {"group": "tier-${{ inputs.tier }}", "cancel-in-progress": True}
    assert "concurrency" not in yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())
    waiting = {name: job.get("needs") for name, job in jobs("nightly.yml").items()}
    assert "tiers" not in waiting.values(), "what a tier leads to happens in its own workflow"


def test_the_environment_stays_between_nights():
    checkout = jobs("tier.yml")["run"]["steps"][0]
    assert checkout["with"]["clean"] is False
    assert "git clean -ffdxq --exclude=/.venv" in commands(jobs("tier.yml")["run"])


def test_nightly_proposes_and_never_merges():
    text = "".join(path.read_text() for path in (*WORKFLOWS, *(ROOT / "ci/nightly").iterdir()))
    assert "gh pr create" in text
    assert "gh pr merge" not in text
    assert "auto-merge" not in text


GH = """#!/usr/bin/env bash
printf '%s\n' "$*" >> "$GH_LOG"
case "$1 $2" in
    "pr list" | "issue list") cat "$GH_OPEN" 2>/dev/null || true ;;
esac
"""


@pytest.fixture
def night(tmp_path, monkeypatch):
    """A clone of a repository that has one earlier night, the variables of a runner, and a `gh` that only listens."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    gh = tmp_path / "bin/gh"
    gh.write_text(GH)
    gh.chmod(0o755)
    variables = {"GITHUB_RUN_NUMBER": "2", "GITHUB_RUN_ID": "22", "GITHUB_SHA": "1f0c2ab"}
    variables |= {"GITHUB_SERVER_URL": f"file://{tmp_path}", "GITHUB_REPOSITORY": "origin"}
    variables |= {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "GH_LOG": str(tmp_path / "gh.log")}
    variables |= {"GH_OPEN": str(tmp_path / "open"), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    variables |= {f"GIT_{role}_{key}": "n" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run_in(tmp_path, "git init --quiet --initial-branch main origin")
    write = (
        "mkdir m && echo {} > m/first.json && git add . && git commit --quiet -m one && git checkout --quiet -b main"
    )
    run_in(tmp_path / "origin", "git checkout --quiet --orphan nightly-history && " + write)
    run_in(tmp_path, "git clone --quiet --branch main origin work")
    return tmp_path


def run_in(folder, script):
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nights_of_many_machines_are_all_kept(night):
    """Tiers that end at the same moment push at the same moment."""
    for name in "abcd":
        (night / name / "m").mkdir(parents=True)
        (night / name / f"m/{name}.json").write_text("{}")
    keep = f"{ROOT}/ci/nightly/keep_history.sh"
    run_in(
        night, f"for name in a b c d; do {keep} $name & pids+=($!); done; for pid in ${{pids[@]}}; do wait $pid; done"
    )
    kept = run_in(night / "origin", "git ls-tree -r --name-only nightly-history").split()
    assert kept == ["m/a.json", "m/b.json", "m/c.json", "m/d.json", "m/first.json"]


def test_a_failure_opens_an_issue_and_the_next_one_adds_to_it(night):
    script = f"{ROOT}/ci/nightly/report_failure.sh gpu5x24"
    run_in(night, script)
    assert "issue create --title Nightly: gpu5x24 fails --body [Night 2]" in (night / "gh.log").read_text()
    (night / "open").write_text("7\n")
    run_in(night, script)
    assert "issue comment 7 --body [Night 2]" in (night / "gh.log").read_text()


def test_proposals_reuse_one_branch_and_one_pull_request_whose_checks_run(night):
    """`python -m ci.propose_baselines` itself is tested elsewhere; here a stand-in writes a file a night."""
    work, branch = night / "work", "nightly-baselines"
    (night / "bin/python").write_text(
        '#!/usr/bin/env bash\n[ "$2" = ci.baseline_diff ] || { mkdir -p baselines; echo $3 > baselines/$3; }\n'
    )
    (night / "bin/python").chmod(0o755)
    script = f"{ROOT}/ci/nightly/propose_baselines.sh"
    run_in(work, f"{script} first")
    run_in(work, f"git switch --quiet main; echo 7 > {night}/open; {script} second")
    assert run_in(night / "origin", f"git ls-tree -r --name-only {branch} baselines").split() == [
        "baselines/first",
        "baselines/second",
    ]
    told = (night / "gh.log").read_text()
    assert (told.count("pr create"), told.count("pr edit 7")) == (1, 1)
    assert told.count(f"workflow run pull-request.yml --ref {branch}") == 2
    (night / "open").write_text("")
    run_in(work, f"git switch --quiet main; {script} third")
    assert run_in(night / "origin", f"git ls-tree -r --name-only {branch} baselines").split() == ["baselines/third"]
