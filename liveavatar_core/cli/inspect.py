"""`inspect`: what a checkpoint folder holds, what is wrong with it, and which cards its model fits on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from liveavatar_core.cli.command import Command
from liveavatar_core.cli.field_options import parse_bool
from liveavatar_core.cli.plan.card_sets import CARD_SETS, CardSetFit, fits
from liveavatar_core.cli.stop_signals import StopSignals
from liveavatar_core.errors import GIB, CheckpointError

if TYPE_CHECKING:
    from liveavatar_core.weights.checkpoint_summary import CheckpointReport
    from liveavatar_core.weights.lora import Lora

Rows = Sequence[Sequence[str]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The folder, the LoRA, and what to leave out."""
    given = parser.add_argument_group("what to look at")
    given.add_argument(
        "--ckpt_dir", type=Path, required=True, metavar="FOLDER", help="Wan2.2-S2V-14B, in its published layout."
    )
    given.add_argument("--lora_path_dmd", type=Path, metavar="FILE", help="Live Avatar's LoRA for it.")
    given.add_argument("--lora_rank", type=int, metavar="N", help="Rank that the LoRA must have. (default: any)")
    steps = parser.add_argument_group("what to find out")
    for name, text in (
        ("hashes", "SHA-256 of every file; reads them all."),
        ("values", "Whether every weight is finite; reads them all."),
        ("fit", "Whether the model fits " + ", ".join(CARD_SETS) + ", by simulation; up to some minutes."),
    ):
        steps.add_argument(
            f"--{name}", type=parse_bool, nargs="?", const=True, default=True, metavar="True|False",
            help=f"{text} (default: True)",
        )  # fmt: skip


def run(options: argparse.Namespace, signals: StopSignals) -> int:
    """Print what there is. Raises CheckpointError, with the first problem, if it could not be used."""
    from liveavatar_core.weights.checkpoint_summary import inspect_checkpoint

    report = inspect_checkpoint(options.ckpt_dir, hashes=options.hashes, values=options.values)
    print_report(report)
    problems = problems_of(report) + _look_at_lora(options)
    for problem in problems:
        print(f"problem: {problem}")
    if options.fit and report.model:
        print("simulating where it fits", file=sys.stderr)
        print_fits(fits(report.model, options.lora_rank))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CheckpointError(f"{options.ckpt_dir} cannot be used: {problems[0]}{more}", "fetch those files again")
    return 0


def print_report(report: CheckpointReport) -> None:
    """Print the files of a checkpoint, then its components."""
    files = [[file.path, f"{file.size_bytes:,}", file.sha256 or "not asked for"] for file in report.files]
    print_table(["file", "bytes", "sha256"], files)
    parts = [
        [
            part.name,
            f"{part.parameters:,}",
            ", ".join(f"{count} {dtype}" for dtype, count in sorted(part.dtypes.items())) or "-",
            f"{len(part.problems)} problem(s)" if part.problems else "complete",
        ]
        for part in report.components
    ]
    tokenizer = ["tokenizer", "-", "-", "there" if report.has_tokenizer else "missing"]
    print_table(["component", "parameters", "weights", "state"], [*parts, tokenizer])


def problems_of(report: CheckpointReport) -> list[str]:
    """All that keeps the checkpoint from being used, each once."""
    found = [*report.problems, *(text for part in report.components for text in part.problems)]
    if not report.has_tokenizer:
        found.append(f"no tokenizer in {report.directory}")
    return list(dict.fromkeys(found))


def _look_at_lora(options: argparse.Namespace) -> list[str]:
    """Print what the LoRA is; what is wrong with it."""
    if options.lora_path_dmd is None:
        return []
    from liveavatar_core.weights.checkpoint import open_component
    from liveavatar_core.weights.lora import check_fits, read_lora

    try:
        lora = read_lora(options.lora_path_dmd)
        print_table(["LoRA", "rank", "layers"], [[str(options.lora_path_dmd), str(lora.rank), str(len(lora.layers))]])
        check_fits(lora, open_component(options.ckpt_dir, "transformer"), options.lora_rank)
        return _unreadable(lora) if options.values else []
    except CheckpointError as error:
        return [error.what]


def _unreadable(lora: Lora) -> list[str]:
    problems = []
    for name in lora.factors.names():
        try:
            lora.factors.read(name)
        except CheckpointError as error:
            problems.append(error.what)
    return problems


def print_fits(found: Iterable[CardSetFit]) -> None:
    """Print on which cards the model fits."""
    rows = [[fit.cards, fit.recipe, _gib(fit.peak), _gib(fit.usable), fit.verdict] for fit in found]
    print_table(["cards", "recipe", "peak GiB", "usable GiB", "fits"], rows)


def _gib(size: int | None) -> str:
    return f"{size / GIB:.2f}" if size is not None else "-"


def print_table(head: Sequence[str], rows: Rows) -> None:
    """Columns under their names, and an empty line; the last column is not cut or padded."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    for line in lines:
        padded = [text.ljust(width) for text, width in zip(line, widths, strict=False)]
        print("  ".join([*padded, line[-1]]))
    print()


COMMAND = Command(
    name="inspect",
    summary="Say what a checkpoint folder holds, what is wrong with it, and which cards it fits on.",
    add_options=add_options,
    run=run,
)
