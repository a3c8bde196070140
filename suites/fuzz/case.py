"""One thing that fuzzing tried, as text: a recipe's declared inputs, what was changed in it, the rule it was for.

Free of torch. Fields that have their default are left out, so that a case stays short enough for a command line.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from liveavatar_core import strict
from liveavatar_core.config import ClipSpec, Recipe
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadData
from suites.fuzz.catalogue import RULES

CLIP_FIELDS = frozenset(item.name for item in fields(ClipSpec))
LAYOUT_FIELDS = frozenset(item.name for item in fields(Deployment))
KEPT = Path(__file__).with_name("cases")
"""Cases that failed once, a file each; every one runs for ever after."""


@dataclass(frozen=True, kw_only=True)
class FuzzCase:
    """A rule and what it is asked of."""

    rule: str
    """Name of one of catalogue.RULES."""
    recipe: Recipe
    """Valid, over the 14B; the rule says which model stands in for it."""
    change: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the clip or the deployment that the rule changes, or a number of the rule's own."""

    @property
    def text(self) -> str:
        """The case as JSON in one line, as `read_case` takes it."""
        clip, deployment = _declared(self.recipe.clip), _declared(self.recipe.deployment)
        parts = {"clip": clip, "deployment": deployment, "change": dict(self.change)}
        return json.dumps({"rule": self.rule} | {name: part for name, part in parts.items() if part})

    @property
    def name(self) -> str:
        """The rule and eight digits over all else."""
        return f"{self.rule}-{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"

    @property
    def command(self) -> str:
        """The line that runs it again."""
        return f"python -m suites.fuzz '{self.text}'"


def read_case(text: str, where: str = "the case") -> FuzzCase:
    """The case of a line of JSON; BadData where it is none."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadData(f"{where} is no JSON: {error}", "give the line that a failure printed") from error
    if not isinstance(data, dict) or data.get("rule") not in RULES:
        raise BadData(f"{where} names no rule", f"give one of {', '.join(RULES)}")
    clip = strict.build(ClipSpec, data.get("clip", {}), f"{where}: clip")
    deployment = strict.build(Deployment, data.get("deployment", {}), f"{where}: deployment")
    recipe = Recipe(name=data["rule"], clip=clip, deployment=deployment)
    return FuzzCase(rule=data["rule"], recipe=recipe, change=data.get("change", {}))


def changed(recipe: Recipe, change: Mapping[str, Any]) -> Recipe:
    """`recipe` with other values in fields of its clip (`quirks.NAME` too) or its deployment."""
    quirks = {name.removeprefix("quirks."): value for name, value in change.items() if name.startswith("quirks.")}
    clip = {name: value for name, value in change.items() if name in CLIP_FIELDS}
    layout = {name: value for name, value in change.items() if name in LAYOUT_FIELDS}
    if quirks:
        clip["quirks"] = replace(recipe.clip.quirks, **quirks)
    deployment = replace(recipe.deployment, **layout)
    return replace(recipe, clip=replace(recipe.clip, **clip), deployment=deployment)


def keep(case: FuzzCase, folder: Path = KEPT) -> Path:
    """Write the case to a file of its own: whole or not at all, whoever else writes the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.name}.json"
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", encoding="utf-8", delete=False) as file:
        file.write(case.text + "\n")
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    return path


def kept_cases(folder: Path = KEPT) -> dict[str, FuzzCase]:
    """Every kept case by the name of its file; BadData for one that cannot be read."""
    return {path.stem: read_case(path.read_text(encoding="utf-8"), str(path)) for path in sorted(folder.glob("*.json"))}


def _declared(value: ClipSpec | Deployment) -> dict[str, Any]:
    """Fields that differ from their defaults; those of the quirks too."""
    given, usual = asdict(value), asdict(type(value)())
    return _difference(given, usual)


def _difference(given: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _difference(item, usual[name]) if isinstance(item, dict) else item
        for name, item in given.items()
        if item != usual[name]
    }
