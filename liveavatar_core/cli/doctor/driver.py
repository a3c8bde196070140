"""The driver against torch, and each card: memory, processes, errors, clocks, its slot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from liveavatar_core.cli.doctor.checks import CheckGroup, CheckResult, bad, good, limited, skipped
from liveavatar_core.errors import GIB
from liveavatar_core.hardware.cards import find_card_by_driver_name
from liveavatar_core.hardware.nvml import CardState, DriverState

LEAST_FREE_SHARE = 0.95
"""The least share of a card's memory that must be free.

Tiers count on all of it but 1.5 GiB, which the CUDA context and NCCL take later."""
TORCH_WITH_CUDA = "make setup TORCH_INDEX=https://download.pytorch.org/whl/cu130"


@dataclass(frozen=True, kw_only=True)
class TorchBuild:
    """What there is to know of torch's side."""

    version: str
    cuda: str | None
    """The CUDA it was built with; None: a build for the CPU."""
    available: bool
    """Whether it can use a card."""
    cudnn: int | None = None
    """Version of cuDNN, as 10000 x major + 100 x minor + patch; None: it has none."""


def read_torch() -> TorchBuild:
    """Ask torch; imports it."""
    import torch

    return TorchBuild(
        version=torch.__version__,
        cuda=torch.version.cuda,
        available=torch.cuda.is_available(),
        cudnn=torch.backends.cudnn.version() if torch.version.cuda else None,
    )


def driver_branch(driver: DriverState, torch: TorchBuild) -> CheckGroup:
    """Whether driver and torch understand each other."""
    if driver.version is None:
        why = f"no NVIDIA driver answers: {driver.missing.get('driver', 'unknown')}"
        return CheckGroup(name="driver", results=(skipped("driver and CUDA", why),))
    return CheckGroup(name="driver", results=(_versions(driver, torch), _visible(driver, torch)))


def _versions(driver: DriverState, torch: TorchBuild) -> CheckResult:
    found = f"driver {driver.version} serves CUDA {driver.cuda}; torch {torch.version} is built with {torch.cuda}"
    if torch.cuda is None:
        return bad("CUDA", f"torch {torch.version} is a build for the CPU", TORCH_WITH_CUDA)
    if driver.cuda is None:
        return skipped("CUDA", driver.missing.get("cuda", "the driver does not say which CUDA it serves"))
    if int(driver.cuda.split(".")[0]) < int(torch.cuda.split(".")[0]):
        return bad("CUDA", found, "update the driver, or install a torch built with an older CUDA")
    return good("CUDA", found)


def _visible(driver: DriverState, torch: TorchBuild) -> CheckResult:
    if not driver.cards:
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        return bad("visible cards", f"none; CUDA_VISIBLE_DEVICES is {chosen!r}", "unset CUDA_VISIBLE_DEVICES")
    names = ", ".join(str(card.name) for card in driver.cards)
    if torch.cuda is not None and not torch.available:
        step = "run nvidia-smi; after an update of the driver, restart the machine"
        return bad("visible cards", f"the driver shows {names}, torch can use none", step)
    return good("visible cards", names)


def card_branches(driver: DriverState) -> list[CheckGroup]:
    """A group a card; one that says why, where there is none."""
    if not driver.cards:
        return [CheckGroup(name="cards", results=(skipped("memory, errors, clocks, slot", "there is no card"),))]
    return [
        CheckGroup(name=f"card {card.index}, {card.name}", results=tuple(_card_findings(card))) for card in driver.cards
    ]


def _card_findings(card: CardState) -> Iterator[CheckResult]:
    yield _known(card)
    yield _memory(card)
    yield _processes(card)
    yield _ecc(card)
    yield _clocks(card)
    yield _slot(card)


def _known(card: CardState) -> CheckResult:
    if card.name is None:
        return skipped("data sheet", card.missing.get("name", "the card has no name"))
    known = find_card_by_driver_name(card.name)
    if known is None:
        step = "describe it in liveavatar_core/hardware/cards.toml"
        return limited("data sheet", f"{card.name} is not described, so nothing is predicted for it", step)
    return good("data sheet", f"{known.name}, {known.usable_gib:g} GiB usable")


def _memory(card: CardState) -> CheckResult:
    if card.free_bytes is None or card.total_bytes is None:
        return skipped("memory", card.missing.get("memory", "no reading"))
    found = f"{card.free_bytes / GIB:.2f} GiB free of {card.total_bytes / GIB:.2f}"
    if card.free_bytes < LEAST_FREE_SHARE * card.total_bytes:
        return bad("memory", found, "end the processes that hold it (nvidia-smi names them)")
    return good("memory", found)


def _processes(card: CardState) -> CheckResult:
    if card.processes is None:
        return skipped("other processes", card.missing.get("processes", "no reading"))
    others = [process for process in card.processes if process.pid != os.getpid()]
    if not others:
        return good("other processes", "none")
    names = ", ".join(f"{process.pid} {process.name}".strip() for process in others)
    return bad("other processes", names, f"end them, or choose other cards: CUDA_VISIBLE_DEVICES (not {card.index})")


def _ecc(card: CardState) -> CheckResult:
    if card.uncorrected_ecc_errors is None:
        return skipped("ECC errors", card.missing.get("ECC errors", "the card counts none"))
    found = f"{card.uncorrected_ecc_errors} uncorrected since the driver was loaded"
    if card.uncorrected_ecc_errors:
        return bad("ECC errors", found, f"nvidia-smi --gpu-reset -i {card.index}; if they come back, replace the card")
    return good("ECC errors", found)


def _clocks(card: CardState) -> CheckResult:
    if card.slowed_by is None:
        return skipped("clocks", card.missing.get("clocks", "no reading"))
    if card.slowed_by:
        step = "look after cooling and power, and wait; seconds measured now are not worth keeping"
        return bad("clocks", f"slowed by {', '.join(card.slowed_by)}", step)
    return good("clocks", "not slowed")


def _slot(card: CardState) -> CheckResult:
    """Width is fixed by the slot. The generation is not judged: cards at rest lower it."""
    if card.pcie_width is None or card.pcie_width_max is None:
        return skipped("PCIe", card.missing.get("pcie_width", "no reading"))
    found = (
        f"{card.pcie_width} of {card.pcie_width_max} lanes,"
        f" generation {card.pcie_generation} now, {card.pcie_generation_max} under load"
    )
    if card.pcie_width < card.pcie_width_max:
        return bad("PCIe", found, "seat the card anew, or move it to a slot with all its lanes")
    return good("PCIe", found)
