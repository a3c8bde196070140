"""Graphics cards as data sheets describe them. Free of torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from liveavatar_core import strict
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import GIB, BadData, BadInput
from liveavatar_core.hardware.overheads import OverheadFigure, overhead_items

CARDS_FILE = Path(__file__).with_name("cards.toml")

_RATE_OF_DTYPE = {
    "float32": "fp32_tflops",
    "bfloat16": "bf16_tflops",
    "float16": "fp16_tflops",
    "float8_e4m3fn": "fp8_tflops",
    "float8_e5m2": "fp8_tflops",
    "int8": "int8_tops",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """A card. Sizes in GiB (2**30 bytes); rates in 10**9 bytes, one way, or 10**12 dense operations."""

    name: str
    """How people call it."""
    driver_name: str
    """How its driver calls it, form factor included; the only name that identifies a card in a machine."""
    capacity_gib: float
    """Memory on the card."""
    visible_gib: float
    """What of it torch sees."""
    architecture: str
    """Which table of overheads.toml is its own: ada, ampere, blackwell, hopper."""
    memory_bandwidth_gb_s: float
    """Between the card's memory and its processors."""
    bf16_tflops: float
    """bfloat16 products, float32 accumulation."""
    fp16_tflops: float
    """float16 products, float32 accumulation."""
    fp8_tflops: float | None = None
    """8-bit float products, float32 accumulation; None: the card has none."""
    int8_tops: float
    """8-bit integer products."""
    fp32_tflops: float
    """float32, outside the tensor cores."""
    link: str
    """What connects cards: pcie4, pcie5, nvlink3, nvlink4."""
    link_gb_s: float
    """Over that link, one way."""
    host_link_gb_s: float
    """To and from host memory, one way."""
    sources: dict[str, str]
    """Where each number is from, by field."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not 0 < value < float("inf"):
                raise ValueError(f"{item.name} is {value}")
        if self.visible_gib >= self.capacity_gib:
            raise ValueError(f"visible_gib {self.visible_gib} is not less than capacity_gib {self.capacity_gib}")
        if self.usable_gib <= 0:
            raise ValueError(f"visible_gib {self.visible_gib} leaves nothing to tensors: {self.overheads()} come first")

    @property
    def usable_gib(self) -> float:
        """Memory that tensors may take on a card alone; the rest is the CUDA context's and libraries'."""
        return self._usable(None)

    @property
    def usable_bytes(self) -> int:
        """`usable_gib` in bytes."""
        return int(self.usable_gib * GIB)

    def usable_bytes_in(self, deployment: Deployment) -> int:
        """Bytes that tensors may take where NCCL has what `deployment` needs beside them."""
        return int(self._usable(deployment) * GIB)

    def overheads(self, deployment: Deployment | None = None) -> dict[str, float]:
        """GiB that are no tensor's, by what takes them; NCCL's for `deployment`."""
        return overhead_items(self.architecture, self.link, deployment)

    def _usable(self, deployment: Deployment | None) -> float:
        return round(self.visible_gib - sum(self.overheads(deployment).values()), 4)

    def peak_tflops(self, dtype: str) -> float:
        """Peak rate of products of that type, 10**12 operations a second; BadInput where the card has none.

        `dtype` is torch's name of it, without `torch.`.
        """
        rate = getattr(self, _RATE_OF_DTYPE.get(dtype, ""), None)
        if rate is None:
            raise BadInput(f"{self.name} has no peak rate for {dtype}", f"types: {', '.join(_RATE_OF_DTYPE)}")
        return rate


def read_cards(path: Path) -> dict[str, Card]:
    """The cards of a TOML file by name; raises BadData naming file and key."""
    return {name: _card(name, table, f"{path}: {name}") for name, table in strict.read_toml(path).items()}


def find_card(name: str) -> Card:
    """The card of exactly that name.

    Raises:
        BadInput: there is none; names the closest ones.
    """
    cards = _known_cards()
    if name not in cards:
        close = difflib.get_close_matches(name, cards, n=3, cutoff=0.3) or list(cards)
        raise BadInput(f"no card {name!r} in {CARDS_FILE.name}", f"close names: {', '.join(close)}")
    return cards[name]


def find_card_by_driver_name(driver_name: str) -> Card | None:
    """The card that its driver calls exactly so; None: it is not described."""
    return next((card for card in _known_cards().values() if card.driver_name == driver_name), None)


@cache
def _known_cards() -> dict[str, Card]:
    return read_cards(CARDS_FILE)


def _card(name: str, table: Any, where: str) -> Card:
    """Figures `{value, source}` are split into the field and its entry in `sources`."""
    if not isinstance(table, dict):
        raise BadData(f"{where}: {table!r} is not a table", "write [name] and its figures below")
    values: dict[str, Any] = {"name": name, "sources": {}}
    for key, value in table.items():
        if isinstance(value, dict):
            figure = strict.build(OverheadFigure, value, f"{where}.{key}")
            values["sources"][key] = figure.source
            value = figure.value
        elif not isinstance(value, str):
            raise BadData(f"{where}.{key}: {value!r} has no source", f"write {key} = {{ value = …, source = … }}")
        values[key] = value
    return strict.build(Card, values, where)
