"""Every file has an owner, and CODEOWNERS names no file that is gone: GitHub ignores a line that it cannot use."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWNER = re.compile(r"@[\w-]+(/[\w-]+)?|[\w.+-]+@[\w-]+(\.[\w-]+)+")
"""`@name`, `@organisation/team`, or the address of an account."""


def rules() -> list[tuple[str, list[str]]]:
    lines = (ROOT / ".github/CODEOWNERS").read_text(encoding="utf-8").splitlines()
    split = [line.split() for line in lines if line and not line.startswith("#")]
    return [(pattern, owners) for pattern, *owners in split]


def test_every_line_has_owners_that_github_can_ask():
    assert all(owners for _, owners in rules())
    assert [owner for _, owners in rules() for owner in owners if not OWNER.fullmatch(owner)] == []


def test_every_file_has_an_owner():
    assert rules()[0][0] == "*"


def test_every_pattern_is_a_file_or_a_folder_of_the_repository():
    for pattern, _ in rules()[1:]:
        path = ROOT / pattern.removeprefix("/")
        assert pattern.startswith("/"), f"{pattern} fits anywhere"
        assert path.is_dir() if pattern.endswith("/") else path.is_file(), pattern
