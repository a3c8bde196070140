"""Which baselines moved between two commits: python -m ci.baseline_diff BASE HEAD [--markdown].

Exit status: 0, nothing but changes for people to review; 1, something must be put right; 2, a commit cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ci.baseline_changes import changes_between
from ci.baseline_lint import lint
from ci.baseline_render import as_markdown, as_text
from ci.revisions import read_revision
from liveavatar_core.errors import LiveAvatarError


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the differences of two commits; the exit status is 1 where something must be put right."""
    parser = argparse.ArgumentParser(prog="python -m ci.baseline_diff", description="Which baselines moved, and why.")
    parser.add_argument("base", metavar="BASE", help="commit, branch or tag to compare with")
    parser.add_argument("head", metavar="HEAD", help="commit, branch or tag to look at")
    parser.add_argument("--markdown", action="store_true", help="for a job summary or a comment")
    parser.add_argument("--repository", type=Path, default=Path(), metavar="DIR", help="git repository (here)")
    options = parser.parse_args(arguments)
    try:
        base, head = (read_revision(options.repository, revision) for revision in (options.base, options.head))
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    changes, objections = changes_between(base, head), lint(base, head)
    print((as_markdown if options.markdown else as_text)(changes, objections))
    return int(any(objection.fails for objection in objections))


if __name__ == "__main__":
    sys.exit(main())
