"""`doctor`: look for what keeps Live Avatar from running well on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from liveavatar_core.cli.command import Command
from liveavatar_core.cli.stop_signals import StopSignals

if TYPE_CHECKING:
    from liveavatar_core.cli.doctor.checks import CheckGroup

STYLES = {"good": "green", "skipped": "dim", "limited": "yellow", "bad": "bold red"}
FOUND_FAULTS = 1
"""Exit code of an examination that found something bad."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What to look at beside the machine itself."""
    parser.add_argument("--image", type=Path, metavar="FILE", help="Portrait to judge.")
    parser.add_argument("--audio", type=Path, metavar="FILE", help="Voice to judge.")
    parser.add_argument("--ckpt_dir", type=Path, metavar="FOLDER", help="Checkpoint to look through.")
    parser.add_argument("--lora_path_dmd", type=Path, metavar="FILE", help="LoRA that must fit the checkpoint.")
    parser.add_argument("--overheads", type=Path, metavar="FILE", help="Write what is no tensor on the first card.")
    parser.add_argument("--every_weight", action="store_true", help="Read every weight of it: takes minutes.")
    parser.add_argument("--json", action="store_true", help="For programs.")


def run(options: argparse.Namespace, signals: StopSignals) -> int:
    """Examine, and write the tree down; 1 if something is bad."""
    from liveavatar_core.cli.doctor.driver import read_torch
    from liveavatar_core.cli.doctor.examine import Subject, as_data, examine, worst
    from liveavatar_core.hardware.nvml import read_driver

    subject = Subject(
        image=options.image,
        audio=options.audio,
        ckpt_dir=options.ckpt_dir,
        lora=options.lora_path_dmd,
        overheads=options.overheads,
        every_weight=options.every_weight,
    )
    groups = examine(subject, read_driver(), read_torch())
    if options.json:
        print(json.dumps(as_data(groups), indent=1))
    else:
        show(groups, Console())
    return FOUND_FAULTS if worst(groups) == "bad" else 0


def show(groups: Sequence[CheckGroup], console: Console) -> None:
    """The tree, its failing groups open; without lines and colours where nobody looks at a terminal."""
    from liveavatar_core.cli.doctor.examine import SIGNS, leaves_to_show, summary, text_of

    tree = Tree(Text("this machine"))
    lines = ["this machine"]
    for group in groups:
        limb = tree.add(Text(f"{SIGNS[group.status]} {group.name}", style=STYLES[group.status]))
        lines.append(f"  {SIGNS[group.status]} {group.name}")
        for result in leaves_to_show(group):
            leaf = limb.add(Text(f"{SIGNS[result.status]} {text_of(result)}", style=STYLES[result.status]))
            lines.append(f"    {SIGNS[result.status]} {text_of(result)}")
            if result.next_step:
                leaf.add(Text(f"next: {result.next_step}"))
                lines.append(f"      next: {result.next_step}")
    if console.is_terminal:
        console.print(tree)
    else:
        print(*lines, sep="\n", file=console.file)
    print(summary(groups), file=console.file)


COMMAND = Command(
    name="doctor",
    summary="Look for what keeps Live Avatar from running well on this machine.",
    add_options=add_options,
    run=run,
)
