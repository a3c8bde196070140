"""Which machine a run stood on, exactly, so that only like is compared with like."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from liveavatar_core.errors import GIB, BadInput
from liveavatar_core.hardware.cards import find_card, find_card_by_driver_name
from suites.harness.records.record import RunRecord

IDENTITY = (
    *("card", "cards", "card_memory_bytes", "imitated_card", "imitated_cards", "driver", "cuda", "torch"),
    *("link", "allocator", "attention_backend", "compiler"),
)
"""The fields that make two machines one: all of them, exactly."""


def machine_identity(record: RunRecord) -> dict[str, Any]:
    """The facts that two runs must have in common for their numbers to be compared.

    A simulation is decided by its cards, a miniature by its tier. There torch is provenance, so that another
    version shows up as a change of numbers and not as a new machine.
    """
    identity: dict[str, Any] = {"hardware": record.hardware}
    if record.hardware == "miniature":
        return identity
    names = ("card", "cards") if record.hardware == "simulated" else IDENTITY
    found = {name: getattr(record.machine, name) for name in names}
    if record.hardware != "simulated":
        found["weights"] = record.recipe.weights_digest or None  # a run of others is measured apart
    return identity | {name: value for name, value in found.items() if value is not None}


def machine_profile_name(identity: dict[str, Any]) -> str:
    """The folder of a machine's baselines: readable, and different for different machines."""
    if identity["hardware"] == "miniature":
        return "miniature"
    card = re.sub(r"[^a-z0-9]", "", str(identity["card"]).lower())
    name = f"{identity['hardware']}-{card}x{identity['cards']}"
    if identity["hardware"] == "simulated":
        return name
    return f"{name}-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]}"


def usable_gib(identity: dict[str, Any]) -> float | None:
    """GiB that tensors may take of a card of that machine; None: nothing is known of the card."""
    name = str(identity.get("imitated_card") or identity.get("card"))
    card = find_card_by_driver_name(name)
    try:
        usable = (card or find_card(name)).usable_gib
    except BadInput:
        size = identity.get("card_memory_bytes")
        return size / GIB if isinstance(size, int) else None
    # Limits are kept in bytes in a record, and rounded to six places in a baseline.
    return round(usable, 6)
