"""What tiers there are and what must happen on each: data of tiers.toml, and of a lab's own file."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from liveavatar_core import strict
from liveavatar_core.config import ClipSpec, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import GIB, BadData, BadInput, InvalidRecipe
from liveavatar_core.hardware.cards import Card, find_card
from liveavatar_core.recipes import named_recipe
from liveavatar_core.scopes import CATEGORIES, PHASES
from liveavatar_core.weight_files import SEEDED, WeightFiles
from liveavatar_core.workload import LEAST_CLIPS, Workload
from suites.harness.cases.clip_rounds import ClipRounds
from suites.harness.cases.workloads import case_workload

TIERS_FILE = Path(__file__).with_name("tiers.toml")
MIB = 1024**2
RESERVED_NAMES = frozenset(
    {"skip", "skipif", "xfail", "parametrize", "usefixtures", "filterwarnings", "tryfirst", "trylast"}  # pytest
    | {"benchmark", "hypothesis", "xdist_group", "timeout", "flaky", "asyncio", "anyio", "no_cover"}  # its plugins
    | {"cuda", "nightly", "published", "timed", "fuzz", "quality"}  # this project
    | {"and", "or", "not"}  # what stands between names in -m
)
"""Names that already mean something as a pytest marker: `skip` would turn every failure of its tier into a skip."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """The ending that a case must have; no other will do."""

    outcome: Literal["pass", "oom"]
    """The outcome: pass, or out of a card's memory."""
    phases: tuple[str, ...] = ()
    """The phases in which it may run out of memory, one of scopes.PHASES each; none with outcome pass."""
    category: str | None = None
    """The category of bytes that must have been asked for, one of scopes.CATEGORIES; None with outcome pass."""
    because: str
    """The arithmetic behind it."""

    def __post_init__(self) -> None:
        if (self.outcome == "oom") != bool(self.phases and self.category):
            raise ValueError("phases and category belong to outcome oom, and to it alone")
        for name in set(self.phases) - set(PHASES):
            raise ValueError(f"phase {name!r} is none of {', '.join(PHASES)}")
        if self.category not in (None, *CATEGORIES):
            raise ValueError(f"category {self.category!r} is none of {', '.join(CATEGORIES)}")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recipe on a tier, and what must come of it."""

    name: str
    """The name of the case, unique in its tier."""
    recipe: str
    """Name of the recipe in liveavatar_core.recipes."""
    clip: dict[str, Any] = field(default_factory=dict)
    """Fields of the recipe's ClipSpec to change."""
    deployment: dict[str, Any] = field(default_factory=dict)
    """Fields of the recipe's Deployment to change."""
    portrait: str | None = None
    """WIDTHxHEIGHT of the portrait in pixels; None: the one that makes the most tokens at the clip's size."""
    voice_seconds: float | None = None
    """How long the voice is; None: as long as the clips."""
    expect: Expectation
    """The ending that it must have."""
    miniature_capacity_mib: float | None = None
    """The miniature mode's limit, in MiB; None: the case has no miniature."""
    miniature_clip: dict[str, Any] = field(default_factory=dict)
    """Fields of the miniature's ClipSpec to change."""
    reference_clip: dict[str, Any] | None = None
    """The miniature is compared with one process in float32, in whose ClipSpec these fields differ; None: it is not."""


@dataclass(frozen=True, kw_only=True)
class Tier:
    """A number of cards of one size, and the cases that run there."""

    name: str
    """The name of the tier, which is also the pytest marker."""
    title: str
    """A title for reports."""
    cards: int
    """The number of cards."""
    card: str
    """The card in cards.toml that stands for its size: the one that is simulated and imitated. Real runs take any
    model of the same memory, under limits of its own."""
    cases: tuple[Case, ...]
    """The cases that run there, in the order of the file."""
    added: bool = False
    """Whether it came from a lab's own file."""
    host_gib: float | None = None
    """Memory of the machine that the cards are in, which all ranks share; None: it is no limit."""
    workload: Workload | None = None
    """Portrait, voice and prompt that somebody gave for every run; None: what ships."""
    rounds: ClipRounds | None = None
    """The clips that somebody asked to be timed in every run; None: what each hardware mode declares."""
    weights: WeightFiles = SEEDED
    """Weights that somebody gave for every run on real cards; without files: seeded values."""

    @property
    def card_model(self) -> Card:
        """The card as its data sheet has it. Raises BadInput where cards.toml has none of that name."""
        return find_card(self.card)

    @property
    def size(self) -> str:
        """What cards it takes, by their memory: `24 GB card`."""
        return f"{self.card_model.capacity_gib:g} GB card{'s' if self.cards > 1 else ''}"

    @property
    def host_limit_bytes(self) -> int | None:
        """`host_gib` in bytes."""
        return None if self.host_gib is None else int(self.host_gib * GIB)

    @property
    def limit_bytes(self) -> int:
        """The usable bytes of one card, before NCCL has its part of it."""
        return self.card_model.usable_bytes

    def case(self, name: str) -> Case:
        """The case of that name; BadInput if there is none."""
        for case in self.cases:
            if case.name == name:
                return case
        raise BadInput(f"tier {self.name} has no case {name!r}", f"cases: {', '.join(c.name for c in self.cases)}")

    def recipe(self, case: Case) -> Recipe:
        """The recipe of `case` for this many cards, its changes applied, over its workload: what runs at full size."""
        recipe = self.layout(case)
        workload = self.workload or case_workload(recipe.clip.max_area, case.portrait, case.voice_seconds)
        return replace(recipe, workload=workload)

    def layout(self, case: Case) -> Recipe:
        """The recipe of `case` without its workload, whose files are read where a run needs them."""
        recipe = named_recipe(case.recipe, self.cards)
        where = f"{self.name}.cases.{case.name}"
        clip = strict.build(ClipSpec, asdict(recipe.clip) | {"num_clip": LEAST_CLIPS} | case.clip, f"{where}.clip")
        deployment = strict.build(Deployment, asdict(recipe.deployment) | case.deployment, f"{where}.deployment")
        return replace(recipe, clip=clip, deployment=deployment)


@dataclass(frozen=True, kw_only=True)
class _TierTable:
    title: str
    cards: int
    card: str
    cases: dict[str, dict[str, Any]]
    host_gib: float | None = None

    def __post_init__(self) -> None:
        if self.host_gib is not None and not 0 < self.host_gib < float("inf"):
            raise ValueError(f"host_gib is {self.host_gib}")


def read_tiers(
    *paths: Path,
    workload: Workload | None = None,
    weights: WeightFiles = SEEDED,
    host_gib: float | None = None,
    rounds: ClipRounds | None = None,
) -> dict[str, Tier]:
    """The tiers of tiers.toml and of `paths`, by name; with workload, weights, host memory and rounds, where given.

    Raises:
        BadData: a file is broken or names an unknown card, recipe, phase or key; a name is taken.
    """
    tiers: dict[str, Tier] = {}
    given = {"workload": workload, "weights": weights, "rounds": rounds} | (
        {} if host_gib is None else {"host_gib": host_gib}
    )
    for path in (TIERS_FILE, *paths):
        for name, table in strict.read_toml(path).items():
            if name in tiers:
                raise BadData(f"{path}: tier {name!r} is there already", "choose another name")
            tiers[name] = _tier(name, table, f"{path}: {name}", added=path != TIERS_FILE, **given)
    return tiers


def _tier(name: str, data: Any, where: str, **given: Any) -> Tier:
    _check_name(name, where)
    if name in RESERVED_NAMES:
        raise BadData(f"{where}: {name!r} already means something as a pytest marker", "name it after its cards")
    table = strict.build(_TierTable, data, where)
    if table.cards < 1 or not table.cases:
        raise BadData(f"{where}: {table.cards} cards, {len(table.cases)} cases", "give 1 or more of each")
    cases = tuple(_case(case, values, f"{where}.cases.{case}") for case, values in table.cases.items())
    shared: dict[str, Any] = {
        "title": table.title,
        "cards": table.cards,
        "card": table.card,
        "host_gib": table.host_gib,
    }
    tier = Tier(name=name, cases=cases, **(shared | given))
    for case in tier.cases:
        _check_case(tier, case, f"{where}.cases.{case.name}")
    return tier


def _case(name: str, values: dict[str, Any], where: str) -> Case:
    _check_name(name, where)
    if "name" in values:
        raise BadData(f"{where}: unknown key 'name'", "the table's name is the case's name")
    case = strict.build(Case, values | {"name": name}, where)
    if case.miniature_capacity_mib is not None and not 0 < case.miniature_capacity_mib < 1e6:
        raise BadData(f"{where}.miniature_capacity_mib: {case.miniature_capacity_mib}", "give MiB above 0")
    return case


def _check_name(name: str, where: str) -> None:
    """Names become pytest markers, test ids and file names."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise BadData(f"{where}: name {name!r} is not lower-case letters, digits and _", "rename it")


def _check_case(tier: Tier, case: Case, where: str) -> None:
    try:
        tier.card_model  # noqa: B018 - raises where there is no such card
        needed = tier.layout(case).deployment.num_cards
        if case.portrait is not None:
            Workload.of_portrait(case.portrait)
    except (BadInput, InvalidRecipe, BadData) as error:
        raise BadData(f"{where}: {error.what}", error.next_step) from error
    if needed != tier.cards:
        raise BadData(f"{where}: the recipe takes {needed} cards, the tier has {tier.cards}", "make them equal")
