"""What is no tensor: measured on the card that is here, against what is set aside for it; and cuDNN's bad versions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from liveavatar_core.cli.doctor.checks import CheckGroup, CheckResult, bad, good, limited, skipped
from liveavatar_core.cli.doctor.driver import TorchBuild
from liveavatar_core.cli.doctor.links import reason_of
from liveavatar_core.files import write_atomically
from liveavatar_core.hardware.cards import Card, find_card_by_driver_name
from liveavatar_core.hardware.nvml import DriverState

UNFOLDING = range(90800, 91500)
"""cuDNN 9.8 to 9.14, as it gives its version: they run bfloat16 conv3d by unfolding its input."""
TOLERANCE_GIB = 0.05
MEASURE_SECONDS = 120.0


def overheads_branch(driver: DriverState, torch: TorchBuild, write_to: Path | None = None) -> CheckGroup:
    """CuDNN's version, and what is no tensor on the first card. `write_to`: takes the figures, as overheads.toml."""
    results = (judge_cudnn(torch), _measured(driver, torch, write_to))
    return CheckGroup(name="what is no tensor", results=results)


def judge_cudnn(torch: TorchBuild) -> CheckResult:
    """Whether the VAE's convolutions have a kernel in the cuDNN that this torch has."""
    version = torch.cudnn
    if version is None or torch.cuda is None:
        return skipped("cuDNN", "this torch has none")
    name = f"{version // 10000}.{version // 100 % 100}.{version % 100}"
    if version in UNFOLDING:
        found = f"{name} runs bfloat16 conv3d by unfolding, which takes the VAE some 10 GiB; 9.7 and 9.15 do not"
        return bad(
            "cuDNN",
            found,
            f"install another beside this torch: pip install 'nvidia-cudnn-cu{torch.cuda.partition('.')[0]}>=9.15'",
        )
    return good("cuDNN", name)


def _measured(driver: DriverState, torch: TorchBuild, write_to: Path | None) -> CheckResult:
    name = "context, cuBLAS, cuDNN"
    if not driver.cards or not torch.available:
        return skipped(name, "there is no card to measure them on")
    card = find_card_by_driver_name(driver.cards[0].name or "")
    if card is None:
        return skipped(name, f"{driver.cards[0].name} is not described, so nothing is set aside for it")
    try:
        found = measure_overheads()
    except RuntimeError as error:
        return bad(name, str(error), "end what else is on the card, and look again")
    if write_to is not None:
        write_atomically(write_to, as_toml(card, found))
    return judge_overheads(card, found)


def judge_overheads(card: Card, found: Mapping[str, float]) -> CheckResult:
    """Measured GiB by item against what is set aside."""
    name, aside = "context, cuBLAS, cuDNN", sum(card.overheads().values())
    items = ", ".join(f"{item} {gib:.2f}" for item, gib in found.items())
    text = f"{sum(found.values()):.2f} GiB ({items}); {aside:.2f} are set aside"
    if sum(found.values()) > aside + TOLERANCE_GIB:
        step = "verdicts are too kind here: doctor --overheads FILE writes these figures, for hardware/overheads.toml"
        return limited(name, text, step)
    return good(name, text)


def as_toml(card: Card, found: Mapping[str, float]) -> str:
    """The table of overheads.toml that measured figures make."""
    lines = [f'{item}_gib = {{ value = {gib}, source = "measured on {card.name}" }}' for item, gib in found.items()]
    return "\n".join([f"[architecture.{card.architecture}]", *lines, ""])


def measure_overheads() -> dict[str, float]:
    """GiB by item, measured in a process of its own. Raises RuntimeError, which says why not."""
    command = [sys.executable, "-m", "liveavatar_core.cli.doctor.measure_overheads"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MEASURE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {MEASURE_SECONDS:g} s") from None
    if done.returncode:
        raise RuntimeError(reason_of(done.stderr))
    return dict(json.loads(done.stdout))
