"""Every command-line option of the suite, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import pytest

from liveavatar_core.errors import BadInput
from liveavatar_core.weight_files import SEEDED, WeightFiles, given_weights
from liveavatar_core.workload import Workload
from suites.harness.cases.clip_rounds import ClipRounds, asked_rounds
from suites.harness.cases.workloads import given_workload
from suites.harness.records.record import HARDWARE_MODES

AUTO = "auto"
GIVEN = {
    "ckpt_dir": ("FOLDER", "checkpoint of every run on real cards (seeded values)"),
    "lora_path_dmd": ("FILE", "Live Avatar's LoRA, for --ckpt_dir"),
    "image": ("FILE", "portrait of every run (a drawn one that ships)"),
    "audio": ("FILE", "voice of every run (one that ships)"),
    "prompt": ("TEXT", "prompt of every run"),
}
"""What a lab gives of its own: options, environment variables and ini options, the first that says something."""
CompareLevel = Literal["fail", "warn", "off"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line asks for."""

    hardware: tuple[str, ...]
    """Hardware modes; each test runs once in each. `auto`: the most real one that the machine allows."""
    require_hardware: bool
    """Missing cards fail a test instead of skipping it, and `auto` means physical."""
    tiers: tuple[Path, ...]
    """More files of tiers."""
    baseline_dir: Path
    """Where baselines and waivers are."""
    require_baselines: bool = False
    """A number without a reviewed baseline, or whose baseline is lost, fails a test."""
    baseline_update: Literal["no", "new-only", "all"]
    """What of the baselines is rewritten."""
    baseline_compare: CompareLevel
    """Whether a difference from a baseline fails a test."""
    baseline_reason: str | None
    """Why numbers that got worse are accepted."""
    report_dir: Path
    """Where records and reports go."""
    history: Path | None
    """JSON-lines file that every record is added to."""
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
    """Declare them."""
    group = parser.getgroup("live avatar", "hardware conformance and benchmarks")
    group.addoption(
        "--hardware",
        default=AUTO,
        metavar="MODE[,MODE]",
        help=f"on what runs stand: {AUTO} (the most real one possible), {', '.join(HARDWARE_MODES)}",
    )
    group.addoption("--require-hardware", action="store_true", help="missing cards fail instead of skipping")
    group.addoption("--tiers", action="append", default=[], metavar="FILE", help="more tiers, as tiers.toml")
    for name, (kind, help_text) in GIVEN.items():
        group.addoption(f"--{name}", default=None, metavar=kind, help=f"{help_text}; also {variable_of(name)}")
        parser.addini(name, f"{help_text}, where neither --{name} nor {variable_of(name)} says", default="")
    group.addoption("--host-gib", type=_gib, default=None, metavar="GIB", help="memory of every tier's machine")
    group.addoption("--warm-up-clips", type=int, default=None, metavar="N", help="clips before timed ones (cards: 2)")
    group.addoption("--measured-clips", type=int, default=None, metavar="N", help="clips that are timed (cards: 5)")
    group.addoption("--report-dir", default="report", metavar="DIR", help="records and reports (report)")
    group.addoption("--history", default=None, metavar="FILE", help="JSON lines to add every record to")
    group.addoption("--report-html", default=None, metavar="FILE", help="one page about all that ran, for a browser")
    group.addoption(
        "--fuzz-profile", choices=("dev", "ci", "nightly"), default="dev", help="how much suites/fuzz tries (dev)"
    )
    _add_baseline_options(group)


def _gib(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _add_baseline_options(group: pytest.OptionGroup) -> None:
    group.addoption("--baseline-dir", default=None, metavar="DIR", help="baselines (baselines)")
    group.addoption("--require-baselines", action="store_true", help="a number without a reviewed baseline fails")
    group.addoption(
        "--baseline-compare",
        choices=("fail", "warn", "off"),
        default="fail",
        help="what a difference from the baseline does (fail)",
    )
    group.addoption("--baseline-update", action="store_true", help="rewrite values, never tolerances")
    group.addoption("--baseline-update-new-only", action="store_true", help="add what has no baseline yet")
    group.addoption("--baseline-reason", default=None, metavar="TEXT", help="why worse values are right")


def read_settings(config: pytest.Config) -> Settings:
    """The options of this run, relative paths taken from the root folder; BadInput if they don't fit."""
    update, new_only = config.getoption("--baseline-update"), config.getoption("--baseline-update-new-only")
    if update and new_only:
        raise BadInput("--baseline-update and --baseline-update-new-only exclude each other", "give one of them")
    compare, required = config.getoption("--baseline-compare"), config.getoption("--require-baselines")
    if required and compare != "fail":
        raise BadInput(f"--require-baselines and --baseline-compare={compare} exclude each other", "give one of them")
    history, report_html = config.getoption("--history"), config.getoption("--report-html")
    return Settings(
        hardware=_hardware(config.getoption("--hardware")),
        require_hardware=config.getoption("--require-hardware"),
        tiers=tuple(Path(path) for path in config.getoption("--tiers")),
        baseline_dir=_baseline_dir(config),
        require_baselines=required,
        baseline_update="all" if update else "new-only" if new_only else "no",
        baseline_compare=cast(CompareLevel, compare),
        baseline_reason=config.getoption("--baseline-reason"),
        report_dir=config.rootpath / config.getoption("--report-dir"),
        history=Path(history) if history else None,
        report_html=Path(report_html) if report_html else None,
        host_gib=config.getoption("--host-gib"),
        rounds=asked_rounds(config.getoption("--warm-up-clips"), config.getoption("--measured-clips")),
        workload=given_workload(*(_given(config, name) for name in ("image", "audio", "prompt"))),
        weights=given_weights(*(_given(config, name) for name in ("ckpt_dir", "lora_path_dmd"))),
    )


def variable_of(name: str) -> str:
    """The environment variable of one of GIVEN."""
    return f"LIVE_AVATAR_{name.upper()}"


def _given(config: pytest.Config, name: str) -> str | None:
    given = config.getoption(f"--{name}")
    return given if given is not None else os.environ.get(variable_of(name)) or config.getini(name) or None


def _baseline_dir(config: pytest.Config) -> Path:
    """Where baselines are. A folder that somebody named and that is not there is a typo: nothing would be compared."""
    given = config.getoption("--baseline-dir")
    folder = config.rootpath / (given or "baselines")
    if given and not folder.is_dir():
        raise BadInput(f"--baseline-dir {given}: there is no folder {folder}", f"correct the name, or mkdir {folder}")
    return folder


def _hardware(text: str) -> tuple[str, ...]:
    modes = tuple(dict.fromkeys(text.split(",")))
    for mode in modes:
        if mode not in (AUTO, *HARDWARE_MODES):
            raise BadInput(f"no hardware mode {mode!r}", f"give --hardware={'|'.join((AUTO, *HARDWARE_MODES))}")
    return modes
