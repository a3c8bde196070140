"""Baseline files as they are at a commit, read from git without touching the working tree."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from liveavatar_core import strict
from liveavatar_core.errors import BadData, BadInput
from suites.harness.verdicts.baselines import BaselineFile, baselines_of
from suites.harness.verdicts.index import INDEX_FILE, Index, index_of

FOLDER = "baselines"
"""The folder of a repository that holds its baselines."""


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """The baseline files of a commit."""

    texts: dict[str, str]
    """Text by path inside `baselines/`, as `miniature/gpu4x24.toml`."""
    files: dict[str, BaselineFile]
    """The files that can be read, by path."""
    broken: dict[str, str]
    """Why the other files cannot be read, by path."""
    index: Index
    """The metrics that the commit's index lists, by case; empty where it has none."""


def read_revision(repository: Path, revision: str) -> Baselines:
    """The baselines at `revision`: a commit, branch or tag.

    Raises:
        BadInput: `repository` is no git repository, or it has no such commit.
    """
    commit = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").strip()
    listed = _git(repository, "ls-tree", "-r", "-z", "--full-tree", "--name-only", commit, "--", f"{FOLDER}/")
    texts = {}
    for path in filter(_is_baseline, listed.split("\0")):
        texts[path.removeprefix(f"{FOLDER}/")] = _git(repository, "show", f"{commit}:{path}")
    files: dict[str, BaselineFile] = {}
    broken: dict[str, str] = {}
    for path, text in texts.items():
        try:
            files[path] = baselines_of(strict.parse_toml(text, path), path)
        except BadData as error:
            broken[path] = error.what
    return Baselines(texts=texts, files=files, broken=broken, index=_index(repository, commit, listed, broken))


def _index(repository: Path, commit: str, listed: str, broken: dict[str, str]) -> Index:
    path = f"{FOLDER}/{INDEX_FILE}"
    if path not in listed.split("\0"):
        return {}
    try:
        return index_of(strict.parse_toml(_git(repository, "show", f"{commit}:{path}"), INDEX_FILE), INDEX_FILE)
    except BadData as error:
        broken[INDEX_FILE] = error.what
        return {}


def _is_baseline(path: str) -> bool:
    """Whether it is baselines/<machine profile>/<tier>.toml; waivers lie one level higher."""
    return path.endswith(".toml") and path.count("/") == 2


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except OSError as error:
        raise BadInput(f"git cannot be run: {error}", "install git") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip() or f"git {arguments[0]} finds no {arguments[-1]}"
        raise BadInput(said, "give two commits of this repository; in CI, fetch its history") from error
    return done.stdout.decode("utf-8", errors="replace")
