"""The published figures and what is thought of each, as data. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from liveavatar_core import strict
from liveavatar_core.errors import BadData
from suites.harness.cases.tiers import Case, Tier, read_tiers

FOLDER = Path(__file__).parent
FIGURES_FILE, SETTLED_FILE, RUNS_FILE = (
    FOLDER / name for name in ("published_figures.toml", "claim_checks.toml", "runs.toml")
)
ClaimVerdict = Literal["agree", "disagree", "not testable"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number or an outcome that somebody published about this model."""

    id: str
    """Name of the row."""
    source: tuple[Any, ...]
    """Numbers of the articles, or where else it is from."""
    claim: str
    """The claim in words."""
    value: float | None = None
    """The number, if it is one."""
    range: tuple[float, ...] | None = None
    """The numbers between which it lies."""
    unit: str = ""
    """Unit of `value` and `range`."""
    outcome: str | None = None
    """How it was said to end, if the claim is about that."""
    phase: str | None = None
    """The step in which it was said to end so."""
    derivation: str = ""
    """Our arithmetic from the architecture."""

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.value, self.range, self.outcome)) != 1:
            raise ValueError("a figure has one of value, range and outcome")

    @property
    def published(self) -> str:
        """The number or the outcome, for tables."""
        if self.range is not None:
            return f"{self.range[0]:g} to {self.range[1]:g} {self.unit}"
        if self.value is not None:
            return f"{self.value:g} {self.unit}"
        return f"{self.outcome}" + (f" in the {self.phase}" if self.phase else "")


@dataclass(frozen=True, kw_only=True)
class ClaimCheck:
    """How a figure is looked at, and what people made of the answer."""

    verdict: ClaimVerdict
    """The verdict that the reading is known to give; another one fails the row's test."""
    because: str
    """Why it agrees, disagrees or cannot be tested here."""
    run: str | None = None
    """`TIER.CASE` whose record is read."""
    reading: str | None = None
    """The name of the number that is read from it, one of measurements.READINGS."""
    against: str | None = None
    """The other `TIER.CASE`, for readings that take two records."""
    hardware: Literal["simulated", "miniature"] = "simulated"
    """Hardware mode of the run."""
    within: float = 0.03
    """Part by which the larger of both numbers may exceed the smaller. Published numbers are read off a monitor."""
    clips: int = 1
    """How many clips the video has, for readings of a whole video."""
    bound: Literal["about", "at most"] = "about"
    """Whether the claim names a value, or what it does not exceed."""
    between: tuple[float, ...] | None = None
    """The interval that the claim means, where its number is the size of a card."""

    def __post_init__(self) -> None:
        if (self.verdict == "not testable") != (self.run is None) or (self.run is None) != (self.reading is None):
            raise ValueError("run and reading belong to every row that is testable, and to no other")


def read_figures() -> dict[str, Figure]:
    """All figures by id, in the order of the file."""
    tables = strict.read_toml(FIGURES_FILE)["figure"]
    figures = [strict.build(Figure, table, f"{FIGURES_FILE.name}[{index}]") for index, table in enumerate(tables)]
    return {figure.id: figure for figure in figures}


def read_claim_checks() -> dict[str, ClaimCheck]:
    """What is thought of every figure, by id.

    Raises:
        BadData: a figure has none, or a row belongs to no figure.
    """
    tables, figures = strict.read_toml(SETTLED_FILE), read_figures()
    for name in tables.keys() ^ figures.keys():
        raise BadData(f"{SETTLED_FILE.name}: {name!r} is only in one of figures and settlements", "add the other")
    return {name: strict.build(ClaimCheck, table, f"{SETTLED_FILE.name}: {name}") for name, table in tables.items()}


def find_run(run: str) -> tuple[Tier, Case]:
    """Tier and case of `TIER.CASE`; BadData or BadInput if there is none."""
    tier, _, case = run.partition(".")
    tiers = read_tiers(RUNS_FILE)
    if tier not in tiers:
        raise BadData(f"{SETTLED_FILE.name}: no tier {tier!r}", f"tiers: {', '.join(tiers)}")
    return tiers[tier], tiers[tier].case(case)
