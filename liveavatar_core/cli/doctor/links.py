"""Between cards: peer access, and how fast an all-gather really is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

from liveavatar_core.cli.doctor.checks import CheckGroup, CheckResult, bad, good, limited, skipped
from liveavatar_core.hardware.cards import find_card_by_driver_name
from liveavatar_core.hardware.nvml import DriverState

LEAST_LINK_SHARE = 0.4
"""Least share of the data sheet's rate. A copy through host memory passes the slot twice: half, less its overhead."""
ALL_GATHER_SECONDS = 120.0
"""To start a process a card, load CUDA, connect, and gather. A group that cannot connect never says so."""


def link_branch(driver: DriverState) -> CheckGroup:
    """Peer access, then the all-gather over all visible cards."""
    if len(driver.cards) < 2:
        why = f"takes two cards; there are {len(driver.cards)}"
        return CheckGroup(name="between cards", results=(skipped("peer access", why), skipped("NCCL all-gather", why)))
    return CheckGroup(name="between cards", results=(_peers(driver), _all_gather(driver)))


def _peers(driver: DriverState) -> CheckResult:
    if "peer access" in driver.missing:
        return skipped("peer access", driver.missing["peer access"])
    if not driver.without_peer_access:
        return good("peer access", "every pair")
    pairs = ", ".join(f"{first}-{second}" for first, second in driver.without_peer_access)
    step = "expected of GeForce cards; elsewhere turn ACS off in the BIOS. NCCL copies through host memory meanwhile"
    return limited("peer access", f"not between {pairs}", step)


def _all_gather(driver: DriverState) -> CheckResult:
    try:
        measured = measure_all_gather(len(driver.cards), "nccl", ALL_GATHER_SECONDS)
    except RuntimeError as error:
        return bad("NCCL all-gather", str(error), "run again with NCCL_DEBUG=INFO, and read its last lines")
    return judge_rate(measured["gb_s"], driver.cards[0].name)


def judge_rate(gb_s: float, driver_name: str | None) -> CheckResult:
    """A measured rate against the card's data sheet."""
    card = find_card_by_driver_name(driver_name or "")
    if card is None:
        step = "describe the card in liveavatar_core/hardware/cards.toml"
        return limited("NCCL all-gather", f"{gb_s:.1f} GB/s, with nothing to compare it with", step)
    found = f"{gb_s:.1f} GB/s of {card.link_gb_s:g} over {card.link}"
    if gb_s < LEAST_LINK_SHARE * card.link_gb_s:
        return bad("NCCL all-gather", found, "look at `nvidia-smi topo -m`: cards should share a switch or a socket")
    return good("NCCL all-gather", found)


def measure_all_gather(ranks: int, backend: str, seconds: float) -> dict[str, Any]:
    """Start `ranks` processes, gather, end them: `gb_s`, what a rank receives in a second; 10**9 bytes.

    Raises:
        RuntimeError: they did not come to an end within `seconds`, or failed; the message says which.
    """
    command = [sys.executable, "-m", "liveavatar_core.cli.doctor.all_gather", str(ranks), backend]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        raise RuntimeError(f"no answer within {seconds:g} s") from None
    except BaseException:
        _end(process)
        raise
    if process.returncode:
        raise RuntimeError(reason_of(err))
    return dict(json.loads(out))


def reason_of(output: str) -> str:
    """The line of a failed program's output that says why: that of the last exception, else the last one."""
    lines = output.strip().splitlines() or ["no output"]
    return next((line for line in reversed(lines) if re.match(r"[\w.]+(Error|Exception)\b", line)), lines[-1])


def _end(process: subprocess.Popen[str]) -> None:
    """End it and its ranks: they are a process group of their own."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
