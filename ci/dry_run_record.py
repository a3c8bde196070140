"""Execute recipes on fake tensors, and write down what each rank does: operations by phase, and bytes.

    python -m ci.dry_run_record --device cuda --out FILE [TIER.CASE ...]

On `cuda` the branches of a card are taken, on `cpu` those of the CPU, as miniatures do. Neither takes a card.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from liveavatar_core import strict
from liveavatar_core.config import Recipe
from liveavatar_core.errors import BadData, BadInput, LiveAvatarError
from liveavatar_core.files import write_atomically
from liveavatar_core.parallel.ranks import distinct_ranks
from suites.harness.cases.tiers import read_tiers
from suites.quality.cases_table import TIERS as MINIATURES_ALONE

if TYPE_CHECKING:
    from liveavatar_core.simulation.estimate import SimulatedRank

Device = Literal["cuda", "cpu"]
ByPhase = dict[str, dict[str, int]]


@dataclass(frozen=True, kw_only=True)
class ExecutedRank:
    """What one rank of a case did."""

    case: str
    """TIER.CASE."""
    rank: int
    """The rank that was executed, the lowest of its role."""
    torch: str
    """Version and build of torch."""
    device: Device
    """Whose branches were taken."""
    operations: ByPhase
    """How often each operation ran, by where it works and its name, as `card aten.mm`; views are none."""
    totals: ByPhase
    """Floating-point operations, and bytes sent to other ranks."""
    memory: ByPhase
    """Most bytes on the card, by category at that moment, as `card parameters`; in `host` memory; `reserved`."""

    @property
    def name(self) -> str:
        """Case and rank."""
        return f"{self.case} rank {self.rank}"


def chosen_cases(names: Sequence[str]) -> Iterator[tuple[str, Recipe]]:
    """The cases of those names, or all that are run at full size. Raises BadInput for a name that is none."""
    tiers = {name: tier for name, tier in read_tiers().items() if name not in MINIATURES_ALONE}
    known = {f"{tier.name}.{case.name}": (tier, case) for tier in tiers.values() for case in tier.cases}
    for name in names or known:
        if name not in known:
            raise BadInput(f"no case {name!r}", f"cases: {', '.join(known)}")
        tier, case = known[name]
        yield name, tier.recipe(case)


def execute(case: str, recipe: Recipe, rank: int, device: Device) -> ExecutedRank:
    """Execute one rank, however much memory it takes."""
    import torch

    from liveavatar_core.simulation.estimate import simulate_rank
    from liveavatar_core.simulation.fake_card import CARD
    from liveavatar_core.simulation.fake_world import CPU
    from liveavatar_core.simulation.memory_account import Capacity

    made = simulate_rank(recipe, rank, Capacity(), card=CARD if device == "cuda" else CPU)
    operations, totals = _work(made)
    return ExecutedRank(
        case=case,
        rank=rank,
        torch=torch.__version__,
        device=device,
        operations=operations,
        totals=totals,
        memory={phase: _memory(made, phase) for phase in made.peaks},
    )


def _work(made: SimulatedRank) -> tuple[ByPhase, ByPhase]:
    operations: dict[str, Counter[str]] = {}
    totals: dict[str, Counter[str]] = {}
    for each, times in made.work.items():
        operations.setdefault(each.phase, Counter())[f"{each.kind} {each.name}"] += times
        phase = totals.setdefault(each.phase, Counter())
        phase["FLOPs"] += each.flops * times
        phase["bytes sent"] += each.nbytes * times if each.kind in ("link", "gather") else 0
    return {name: dict(found) for name, found in operations.items()}, {
        name: dict(found) for name, found in totals.items()
    }


def _memory(made: SimulatedRank, phase: str) -> dict[str, int]:
    peak = made.peaks[phase]
    held = {f"card {category}": nbytes for category, nbytes in peak.by_category.items() if nbytes}
    reserved = made.reserved_peaks.get(phase, 0)
    return held | {"card": peak.allocated, "host": peak.host_allocated, "reserved": reserved}


def write_record(path: Path, ranks: Sequence[ExecutedRank]) -> None:
    """Write what ranks did, sorted and one rank a line."""
    write_atomically(path, "".join(json.dumps(asdict(each), sort_keys=True) + "\n" for each in ranks))


def read_record(path: Path) -> list[ExecutedRank]:
    """What `write_record` wrote. Raises BadData where it is something else."""
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise BadData(f"{path} cannot be read: {error}", "make it anew: make cuda-dry-run") from error
    return [strict.build(ExecutedRank, each, f"{path}") for each in found]


def check_build() -> None:
    """Raise BadInput unless the installed torch was built with CUDA."""
    import torch

    if torch.version.cuda is None:
        raise BadInput(f"torch {torch.__version__} is built without CUDA", "make cuda-dry-run sets up one that is")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the record; returns the exit status: 2 where it cannot be made."""
    parser = argparse.ArgumentParser(
        prog="python -m ci.dry_run_record", description="Execute recipes on fake tensors, and write down what they do."
    )
    parser.add_argument("cases", nargs="*", metavar="TIER.CASE", help="all that run at full size, if none is given")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="whose branches to take (cuda)")
    parser.add_argument("--cuda-build", action="store_true", help="refuse a torch that is built without CUDA")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write it")
    options = parser.parse_args(arguments)
    try:
        if options.cuda_build:
            check_build()
        write_record(options.out, list(_executed(options.cases, options.device)))
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _executed(cases: Sequence[str], device: Device) -> Iterator[ExecutedRank]:
    for name, recipe in chosen_cases(cases):
        for rank in distinct_ranks(recipe.deployment):
            made = execute(name, recipe, rank, device)
            print(f"  {made.name}: {sum(map(_count, made.operations.values()))} operations", flush=True)
            yield made


def _count(operations: dict[str, int]) -> int:
    return sum(operations.values())


if __name__ == "__main__":
    sys.exit(main())
