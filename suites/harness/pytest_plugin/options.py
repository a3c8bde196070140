"""Every command-line option of the suite, in one place."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from liveavatar_core.errors import BadInput
from liveavatar_core.shipped_files import shipped_folder
from liveavatar_core.weight_files import SEEDED, WeightFiles, given_weights
from liveavatar_core.workload import Workload
from suites.harness.cases.clip_rounds import ClipRounds, asked_rounds
from suites.harness.cases.workloads import given_workload
from suites.harness.records.record import HARDWARE_MODES

AUTO = "auto"
CompareLevel = Literal["fail", "warn", "off"]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """An option of the command line, which an ini file may give as well; dashes become underscores there."""

    name: str
    """As on the command line, without the leading dashes."""
    help: str
    """What it does, its default in brackets."""
    metavar: str = ""
    """The kind of value; empty: a switch, or one of `choices`."""
    choices: tuple[str, ...] = ()
    """What may be given; empty: anything."""
    default: str = ""
    """The value where nobody says anything."""
    many: bool = False
    """Whether it may be given several times."""
    variable: bool = False
    """Whether an environment variable gives it too, before the ini file."""

    @property
    def key(self) -> str:
        """Its name in an ini file."""
        return self.name.replace("-", "_")

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return not self.metavar and not self.choices


FLAGS = (
    Flag(
        name="hardware",
        metavar="MODE[,MODE]",
        default=AUTO,
        help=f"on what runs stand: {AUTO} (the most real one possible), {', '.join(HARDWARE_MODES)}",
    ),
    Flag(name="require-hardware", help="missing cards fail instead of skipping"),
    Flag(name="tiers", metavar="FILE", many=True, help="more tiers, as tiers.toml"),
    Flag(
        name="ckpt_dir", metavar="FOLDER", variable=True, help="checkpoint of every run on real cards (seeded values)"
    ),
    Flag(name="lora_path_dmd", metavar="FILE", variable=True, help="Live Avatar's LoRA, for --ckpt_dir"),
    Flag(name="image", metavar="FILE", variable=True, help="portrait of every run (a drawn one that ships)"),
    Flag(name="audio", metavar="FILE", variable=True, help="voice of every run (one that ships)"),
    Flag(name="prompt", metavar="TEXT", variable=True, help="prompt of every run"),
    Flag(name="host-gib", metavar="GIB", help="memory of every tier's machine"),
    Flag(name="warm-up-clips", metavar="N", help="clips before timed ones (cards: 2)"),
    Flag(name="measured-clips", metavar="N", help="clips that are timed (cards: 5)"),
    Flag(name="report-dir", metavar="DIR", default="report", help="records and reports (report)"),
    Flag(name="history", metavar="DIR", help="folder that a small file of every record is added to"),
    Flag(name="report-html", metavar="FILE", help="one page about all that ran, for a browser"),
    Flag(name="fuzz-profile", choices=("dev", "ci", "nightly"), default="dev", help="how much suites/fuzz tries (dev)"),
    Flag(name="baseline-dir", metavar="DIR", help="baselines (baselines, else those that ship)"),
    Flag(name="require-baselines", help="a number without a reviewed baseline fails"),
    Flag(
        name="baseline-compare",
        choices=("fail", "warn", "off"),
        default="fail",
        help="what a difference from the baseline does (fail)",
    ),
    Flag(name="baseline-update", help="rewrite values, never tolerances"),
    Flag(name="baseline-update-new-only", help="add what has no baseline yet"),
    Flag(name="baseline-reason", metavar="TEXT", help="why worse values are right"),
)
"""Every option of the suite."""
SHIPPED_BASELINES = shipped_folder(Path(__file__).parents[2], "baselines")
BY_NAME = {flag.name: flag for flag in FLAGS}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line asks for."""

    hardware: tuple[str, ...]
    """Hardware modes; each test runs once in each. `auto`: the most real one that the machine allows."""
    require_hardware: bool = False
    """Missing cards fail a test instead of skipping it, and `auto` means physical."""
    tiers: tuple[Path, ...] = ()
    """More files of tiers."""
    baseline_dir: Path
    """Where baselines and waivers are."""
    require_baselines: bool = False
    """A number without a reviewed baseline, or whose baseline is lost, fails a test."""
    baseline_update: Literal["no", "new-only", "all"] = "no"
    """What of the baselines is rewritten."""
    baseline_compare: CompareLevel = "fail"
    """Whether a difference from a baseline fails a test."""
    baseline_reason: str | None = None
    """Why numbers that got worse are accepted."""
    report_dir: Path
    """Where records and reports go."""
    history: Path | None = None
    """Folder that a small file of every record is added to."""
    report_html: Path | None = None
    """Where a page about the session goes."""
    workload: Workload | None = None
    """Portrait, voice and prompt of every run; None: what ships."""
    host_gib: float | None = None
    """Memory of the machine of every tier, in GiB; None: what each tier says."""
    rounds: ClipRounds | None = None
    """The clips of every run that warm up and that are measured; None: what each hardware mode declares."""
    weights: WeightFiles = SEEDED
    """Weights of every run on real cards; without files: seeded values."""


def add_options(parser: pytest.Parser) -> None:
    """Declare them, on the command line and for ini files."""
    group = parser.getgroup("live avatar", "hardware conformance and benchmarks")
    for flag in FLAGS:
        said = f"{flag.help}; also {variable_of(flag.name)}" if flag.variable else flag.help
        if flag.is_switch:
            group.addoption(f"--{flag.name}", action="store_true", default=None, help=said)
        elif flag.many:
            group.addoption(f"--{flag.name}", action="append", default=None, metavar=flag.metavar, help=said)
        else:
            choices = {"choices": flag.choices} if flag.choices else {"metavar": flag.metavar}
            group.addoption(f"--{flag.name}", default=None, help=said, **choices)
        kind: Any = "bool" if flag.is_switch else "linelist" if flag.many else "string"
        parser.addini(flag.key, f"{flag.help}: --{flag.name}", type=kind, default=None)


def option(config: pytest.Config, name: str) -> Any:
    """What the command line says of an option, else its environment variable, else the ini file, else its default.

    A text, a bool for a switch, a list of texts for what may be given several times; None: nobody says anything.
    Raises BadInput for what an option cannot be.
    """
    flag = BY_NAME[name]
    given = config.getoption(f"--{name}")
    if given is None and flag.variable:
        given = os.environ.get(variable_of(name)) or None
    if given is None:
        given = config.getini(flag.key) or flag.default or None
    if flag.choices and given not in flag.choices:
        raise BadInput(f"{flag.key} = {given!r} in the ini file", f"give one of {', '.join(flag.choices)}")
    return bool(given) if flag.is_switch else given


def read_settings(config: pytest.Config) -> Settings:
    """The options of this run; BadInput if they don't fit. Paths of an ini file are taken from the root folder."""
    update, new_only = option(config, "baseline-update"), option(config, "baseline-update-new-only")
    if update and new_only:
        raise BadInput("--baseline-update and --baseline-update-new-only exclude each other", "give one of them")
    compare, required = option(config, "baseline-compare"), option(config, "require-baselines")
    if required and compare != "fail":
        raise BadInput(f"--require-baselines and --baseline-compare={compare} exclude each other", "give one of them")
    return Settings(
        hardware=_hardware(option(config, "hardware")),
        require_hardware=option(config, "require-hardware"),
        tiers=tuple(_from(config, "tiers") / path for path in option(config, "tiers") or ()),
        baseline_dir=_baseline_dir(config, written=update or new_only),
        require_baselines=required,
        baseline_update="all" if update else "new-only" if new_only else "no",
        baseline_compare=cast(CompareLevel, compare),
        baseline_reason=option(config, "baseline-reason"),
        report_dir=config.rootpath / option(config, "report-dir"),
        history=_path(config, "history"),
        report_html=_path(config, "report-html"),
        host_gib=_gib(option(config, "host-gib")),
        rounds=asked_rounds(*(_count(config, name) for name in ("warm-up-clips", "measured-clips"))),
        workload=given_workload(*(option(config, name) for name in ("image", "audio", "prompt"))),
        weights=given_weights(*(option(config, name) for name in ("ckpt_dir", "lora_path_dmd"))),
    )


def variable_of(name: str) -> str:
    """The environment variable of a flag that has one."""
    return f"LIVE_AVATAR_{name.upper()}"


def _from(config: pytest.Config, name: str) -> Path:
    """Where relative paths of an option begin: here on the command line, at the root folder in an ini file."""
    return Path() if config.getoption(f"--{name}") is not None else config.rootpath


def _path(config: pytest.Config, name: str) -> Path | None:
    given = option(config, name)
    return _from(config, name) / given if given else None


def _count(config: pytest.Config, name: str) -> int | None:
    given = option(config, name)
    if given is not None and not re.fullmatch(r"-?\d+", given):
        raise BadInput(f"--{name} {given!r} is no number of clips", "give a whole number, such as 5")
    return None if given is None else int(given)


def _gib(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else 1.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise BadInput(f"--host-gib {text!r} is no size", "give GiB above 0, such as 64")
    return None if text is None else value


def _baseline_dir(config: pytest.Config, *, written: bool) -> Path:
    """Where baselines are. A folder that somebody named and that is not there is a typo: nothing would be compared."""
    given = option(config, "baseline-dir")
    folder = config.rootpath / (given or "baselines")
    if given and not folder.is_dir():
        raise BadInput(f"--baseline-dir {given}: there is no folder {folder}", f"correct the name, or mkdir {folder}")
    if folder.is_dir() or written:
        return folder
    return SHIPPED_BASELINES


def _hardware(text: str) -> tuple[str, ...]:
    modes = tuple(dict.fromkeys(text.split(",")))
    for mode in modes:
        if mode not in (AUTO, *HARDWARE_MODES):
            raise BadInput(f"no hardware mode {mode!r}", f"give --hardware={'|'.join((AUTO, *HARDWARE_MODES))}")
    return modes
