"""Do recipes do on a card what their simulation says? Without a card: a build of torch with CUDA, fake tensors.

    make cuda-dry-run

Executes every case that runs at full size three times: with the CPU's kernels, as a card in the usual build of torch,
and as a card in one with CUDA. Exit status: 0, all differences are explained, and docs/simulation.md lists them; 1,
some are not; 2, it could not be found out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ci.dry_run_differences import Comparison, compare, read_explanations, table
from ci.dry_run_record import ExecutedRank, read_record
from liveavatar_core.errors import BadInput, LiveAvatarError
from liveavatar_core.files import write_atomically
from suites.harness.report.generated_blocks import lines_between, replaced

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/simulation.md"
COMPARISONS = {
    "kernels": ("cpu", "simulated", "the CPU's kernels with a card's"),
    "builds": ("simulated", "cuda", "the simulation of a card with a build of torch for cards"),
}
"""By their name in dry_run_differences.toml and in the document: what is compared with what."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute, compare, tell; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        records = _records(options)
        explained = read_explanations()
        found = {
            name: compare(records[first], records[second], explained[name])
            for name, (first, second, _) in COMPARISONS.items()
        }
        return judge(found, whole=not options.cases, update=options.update_docs)
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ci.cuda_dry_run", description="Do recipes do on a card what their simulation says?"
    )
    parser.add_argument("cases", nargs="*", metavar="TIER.CASE", help="all that run at full size, if none is given")
    parser.add_argument("--python", default=".cuda-dry-run/bin/python", help="one whose torch is built with CUDA")
    parser.add_argument("--folder", type=Path, default=Path("report/cuda-dry-run"), help="where records are kept")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into docs/simulation.md")
    return parser


def _records(options: argparse.Namespace) -> dict[str, list[ExecutedRank]]:
    runs = {
        "cpu": (sys.executable, "--device=cpu"),
        "simulated": (sys.executable, "--device=cuda"),
        "cuda": (options.python, "--device=cuda", "--cuda-build"),
    }
    options.folder.mkdir(parents=True, exist_ok=True)
    return {name: _record(options.folder / f"{name}.jsonl", run, options.cases) for name, run in runs.items()}


def _record(path: Path, run: Sequence[str], cases: Sequence[str]) -> list[ExecutedRank]:
    """Execute in a process of its own. Raises BadInput where that fails."""
    python, *rest = run
    started = time.monotonic()
    print(f"{path.stem}: {python} {' '.join(rest)}", flush=True)
    done = subprocess.run([python, "-m", "ci.dry_run_record", f"--out={path}", *rest, *cases], cwd=ROOT, check=False)
    if done.returncode:
        raise BadInput(f"{path.stem} ended with status {done.returncode}", "read what stands above")
    ranks = read_record(path)
    print(f"{path.stem}: {len(ranks)} ranks, torch {ranks[0].torch}, {time.monotonic() - started:.0f} s", flush=True)
    return ranks


def judge(found: dict[str, Comparison], *, whole: bool, update: bool = False, document: Path = DOCUMENT) -> int:
    """Print what comparisons came to; the exit status is 1 where something is left to explain, or to write down.

    whole: of all cases, so that explanations of nothing and tables of other numbers are objections too. update: write
    the tables.
    """
    failed = False
    for name, comparison in found.items():
        objections = [*comparison.unexplained, *(f"does not differ: {it}" for it in comparison.idle() if whole)]
        differences = sum(comparison.times.values()) + sum(map(len, comparison.seen.values()))
        print(f"{COMPARISONS[name][2]}: {comparison.ranks} ranks, {differences} differences that are explained")
        print("\n".join(f"  unexplained: {line}" for line in objections) or "  and no other")
        failed |= bool(objections)
    if whole and not failed:
        failed = _stale(found, update, document)
    return int(failed)


def _stale(found: dict[str, Comparison], update: bool, document: Path) -> bool:
    """Whether the document lists other differences; with `update` it is written."""
    text = document.read_text(encoding="utf-8")
    stale = [name for name in found if lines_between(text, name) != list(table(found[name]))]
    if stale and update:
        for name in stale:
            text = replaced(text, name, "\n".join(table(found[name])))
        write_atomically(document, text)
        stale = []
    if stale:
        print(f"{document.name} lists other differences\nnext: make cuda-dry-run UPDATE_DOCS=--update-docs")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
