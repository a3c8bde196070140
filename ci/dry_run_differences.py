"""How two executions of a recipe differ, and which of that dry_run_differences.toml explains. Free of torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ci.dry_run_record import ExecutedRank
from liveavatar_core import strict
from liveavatar_core.errors import BadData

EXPLAINED = Path(__file__).with_name("dry_run_differences.toml")


@dataclass(frozen=True, kw_only=True)
class KernelDifference:
    """Operations that stand for others."""

    on_cpu: dict[str, int] = field(default_factory=dict)
    """What the first execution does, as `card aten.rsub`, and how often for one time that it differs."""
    on_card: dict[str, int] = field(default_factory=dict)
    """What the second does for that."""
    phases: tuple[str, ...] = ()
    """Phases where it may be so; none named: in all."""
    most: int | None = None
    """How often a phase of a rank at most; None: without a limit."""
    because: str
    """Why it is so, and right."""

    def __post_init__(self) -> None:
        if not self.because or not (self.on_cpu or self.on_card):
            raise ValueError("say what differs, and because of what")

    def times(self, phase: str, difference: Mapping[str, int]) -> int:
        """How often it explains `difference`, by name the second execution's count less the first's: all of it."""
        if self.phases and phase not in self.phases:
            return 0
        more = (difference.get(name, 0) // count for name, count in self.on_card.items())
        less = (-difference.get(name, 0) // count for name, count in self.on_cpu.items())
        found = max(min((*more, *less)), 0)
        return found if self.most is None else min(found, self.most)


@dataclass(frozen=True, kw_only=True)
class MemoryDifference:
    """Bytes that the second execution holds more, or less, at the fullest moment of a phase."""

    memory: tuple[str, ...]
    """Which: card, `card parameters`, ..., host, reserved."""
    phases: tuple[str, ...] = ()
    """Phases where it may be so; none named: in all."""
    least_bytes: int
    """The smallest difference, negative for less."""
    most_bytes: int
    """The largest."""
    because: str
    """Why it is so, and right."""

    def explains(self, phase: str, memory: str, difference: int) -> bool:
        """Whether such a difference was expected."""
        right = memory in self.memory and (not self.phases or phase in self.phases)
        return right and self.least_bytes <= difference <= self.most_bytes


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """What is known to differ between two kinds of execution."""

    operations: tuple[KernelDifference, ...] = ()
    """Of operations, in the order in which they are looked for."""
    memory: tuple[MemoryDifference, ...] = ()
    """Of bytes."""


@dataclass(kw_only=True)
class Comparison:
    """What comparing some executions two by two came to."""

    explained: Explanations
    """What is known to differ."""
    ranks: int = 0
    """Pairs compared."""
    times: Counter[int] = field(default_factory=Counter)
    """How often each of explained.operations was so, by its place."""
    seen: dict[int, list[int]] = field(default_factory=dict)
    """Differences in bytes that each of explained.memory stood for, by its place."""
    unexplained: list[str] = field(default_factory=list)
    """What nothing explains, a line each."""

    def add(self, first: ExecutedRank, second: ExecutedRank) -> None:
        """Compare one rank in both executions."""
        self.ranks += 1
        for phase in sorted({*first.operations, *second.operations}):
            self._operations(first, phase, _difference(first.operations, second.operations, phase))
        for phase in sorted({*first.totals, *second.totals}):
            for name, change in _difference(first.totals, second.totals, phase).items():
                self.unexplained.append(f"{first.name}, {phase}: {change:+d} {name}")
        for phase in sorted({*first.memory, *second.memory}):
            self._memory(first, phase, _difference(first.memory, second.memory, phase))

    def _operations(self, rank: ExecutedRank, phase: str, rest: Counter[str]) -> None:
        for place, rule in enumerate(self.explained.operations):
            times = rule.times(phase, rest)
            self.times[place] += times
            for name, count in rule.on_card.items():
                rest[name] -= times * count
            for name, count in rule.on_cpu.items():
                rest[name] += times * count
        left = {name: change for name, change in sorted(rest.items()) if change}
        self.unexplained += [f"{rank.name}, {phase}: {change:+d} {name}" for name, change in left.items()]

    def _memory(self, rank: ExecutedRank, phase: str, rest: Counter[str]) -> None:
        for name, change in sorted(rest.items()):
            rules = enumerate(self.explained.memory)
            place = next((place for place, rule in rules if rule.explains(phase, name, change)), None)
            if place is None:
                self.unexplained.append(f"{rank.name}, {phase}: {change:+d} bytes, {name}")
            else:
                self.seen.setdefault(place, []).append(change)

    def idle(self) -> Iterator[str]:
        """Explanations of what does not differ."""
        yield from (rule.because for at, rule in enumerate(self.explained.operations) if not self.times[at])
        yield from (rule.because for at, rule in enumerate(self.explained.memory) if at not in self.seen)


def _difference(first: Mapping[str, Mapping[str, int]], second: Mapping[str, Mapping[str, int]], phase: str) -> Counter:
    before, after = first.get(phase, {}), second.get(phase, {})
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in {*before, *after}}
    return Counter({name: change for name, change in changes.items() if change})


def compare(first: Iterable[ExecutedRank], second: Iterable[ExecutedRank], explained: Explanations) -> Comparison:
    """Compare executions of the same ranks. Raises BadData where one of them lacks a rank."""
    before, after = ({each.name: each for each in ranks} for ranks in (first, second))
    if before.keys() != after.keys():
        alone = sorted(before.keys() ^ after.keys())
        raise BadData(f"one record alone has {', '.join(alone)}", "make both anew: make cuda-dry-run")
    found = Comparison(explained=explained)
    for name in before:
        found.add(before[name], after[name])
    return found


def read_explanations(path: Path = EXPLAINED) -> dict[str, Explanations]:
    """What is known to differ, by the name of a comparison. Raises BadData where the file is broken."""
    return {
        name: strict.build(Explanations, table, f"{path}: {name}") for name, table in strict.read_toml(path).items()
    }


def table(found: Comparison) -> Sequence[str]:
    """What differs, as lines of Markdown."""
    lines = []
    for place, rule in enumerate(found.explained.operations):
        lines.append(f"| {_named(rule.on_cpu)} | {_named(rule.on_card)} | {found.times[place]} | {rule.because} |")
    for place, each in enumerate(found.explained.memory):
        changes = found.seen.get(place, [0])
        span = f"{min(changes):+,} to {max(changes):+,} bytes"
        lines.append(f"| {', '.join(each.memory)} | {span} | {len(changes)} | {each.because} |")
    return ("| on the CPU | on a card | times | because |", "|---|---|---|---|", *lines) if lines else ("Nothing.",)


def _named(operations: Mapping[str, int]) -> str:
    names = (f"{count} x `{name}`" if count > 1 else f"`{name}`" for name, count in operations.items())
    return ", ".join(names) or "nothing"
