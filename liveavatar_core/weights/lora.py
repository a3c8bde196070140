"""Live Avatar's LoRA: merged into the weights while they are read, or handed on beside them.

A target layer gets W + scale * B @ A, with A [rank, in] and B [out, rank].
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.errors import CheckpointError
from liveavatar_core.weights.adapter import ALPHA_PER_RANK, TARGETS
from liveavatar_core.weights.files import open_weights_file
from liveavatar_core.weights.source import RenamedSource, WeightSource

SUM_BYTES = 64 * 1024**2
"""Bytes of a sum in float32 that stand beside a weight while a LoRA is merged into it."""
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<layer>.+)\.lora_(?P<factor>[AB])\.default\.weight")


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A LoRA file, its keys and shapes checked."""

    factors: WeightSource
    """`<layer>.lora_A.default.weight` and `<layer>.lora_B.default.weight` of each layer."""
    layers: frozenset[str]
    """Names of the layers that it adapts."""
    rank: int
    """Inner width of the factors."""
    where: str
    """The file that it is from, for messages."""

    @property
    def scale(self) -> float:
        """What B @ A is multiplied with: alpha / rank. The file does not tell; the published one is 0.5."""
        return ALPHA_PER_RANK

    def delta(self, layer: str, rows: slice | None = None) -> Tensor:
        """What is added to the layer's weight, or to `rows` of it; float32."""
        a, b = (self._factor(layer, kind) for kind in "AB")
        return (b[rows or slice(None)] @ a).mul_(self.scale)

    def add_to(self, out: Tensor, layer: str, first: int, dtype: torch.dtype) -> None:
        """Add it, where `out` stands, to values of the layer's weight from number `first` on; rounded once to `dtype`.

        A few rows of the sum in float32 stand beside them at a time.
        """
        a, b = (self._factor(layer, kind, out.device) for kind in "AB")
        flat, width = out.view(-1), a.shape[1]
        step, last = max(SUM_BYTES // (4 * width), 1), first + flat.numel()
        for top in range(first // width, -(-last // width), step):
            begin, end = max(first, top * width), min(last, (top + step) * width)
            delta = (b[top : top + step] @ a).mul_(self.scale).view(-1)[begin - top * width : end - top * width]
            held = flat[begin - first : end - first]
            held.copy_(delta.add_(held).to(dtype))

    def _factor(self, layer: str, kind: str, device: torch.device | None = None) -> Tensor:
        name = f"{layer}.lora_{kind}.default.weight"
        factor = torch.empty(self.factors.shape(name), dtype=torch.float32, device=device)
        self.factors.copy_to(name, 0, factor)
        return factor


def read_lora(path: Path) -> Lora:
    """Open a LoRA file; its values are read when they are needed.

    Keys may have the prefix `base_model.model.`; whether they do is decided by the first, as in the
    original. Where the original ignores keys that it cannot place, this raises CheckpointError: a LoRA that
    does nothing is a defect.
    """
    return lora_of(open_weights_file(path), str(path))


def lora_of(source: WeightSource, where: str) -> Lora:
    """A LoRA from factors in the published naming. `where` is for messages. Raises CheckpointError."""
    has_prefix = next(iter(source.names()), "").startswith(_PREFIX)
    factors = RenamedSource(source, (lambda name: name.removeprefix(_PREFIX)) if has_prefix else str)
    found = {name: _FACTOR.fullmatch(name) for name in factors.names()}
    strangers = sorted(name for name, match in found.items() if match is None or not _is_target(match["layer"]))
    if strangers or not found:
        raise CheckpointError(
            f"{where}: {len(strangers)} of {len(found)} keys name no LoRA factor of this model"
            + (f", the first is {strangers[0]}" if strangers else ""),
            "keys are LAYER.lora_A.default.weight and LAYER.lora_B.default.weight, LAYER ending in "
            + ", ".join(TARGETS),
        )
    layers = frozenset(match["layer"] for match in found.values() if match)
    return Lora(factors=factors, layers=layers, rank=_common_rank(factors, layers, where), where=where)


def _is_target(layer: str) -> bool:
    return any(layer == target or layer.endswith("." + target) for target in TARGETS)


def _common_rank(factors: WeightSource, layers: Collection[str], where: str) -> int:
    """The one rank of all factors; each layer must have both."""
    ranks = set()
    for layer in sorted(layers):
        for factor, dimension in (("A", 0), ("B", 1)):
            name = f"{layer}.lora_{factor}.default.weight"
            if name not in factors.names():
                raise CheckpointError(f"{where}: {name} is missing", "fetch the LoRA file again")
            ranks.add(factors.shape(name)[dimension])
    if len(ranks) > 1:
        raise CheckpointError(f"{where}: factors of ranks {sorted(ranks)} in one file", "fetch the LoRA file again")
    return ranks.pop()


def check_fits(lora: Lora, base: WeightSource, rank: int | None = None) -> None:
    """Check that every layer of `lora` is one of `base` in its size, and that it has the `rank` asked for.

    Raises CheckpointError naming file and key.
    """
    if rank is not None and lora.rank != rank:
        raise CheckpointError(f"{lora.where} has rank {lora.rank}, not {rank}", f"give --lora_rank {lora.rank}")
    for layer in sorted(lora.layers):
        weight = f"{layer}.weight"
        if weight not in base.names():
            raise CheckpointError(f"{lora.where} adapts {layer}, which the model does not have", _OTHER_MODEL)
        b = lora.factors.shape(f"{layer}.lora_B.default.weight")
        a = lora.factors.shape(f"{layer}.lora_A.default.weight")
        if (b[0], a[1]) != tuple(base.shape(weight)):
            raise CheckpointError(
                f"{lora.where}: {layer} is {[b[0], a[1]]}; the model has {list(base.shape(weight))}",
                _OTHER_MODEL,
            )


_OTHER_MODEL = "take the LoRA that was trained for this model"


class MergedSource(WeightSource):
    """Weights with a LoRA added: the sum in float32, rounded once to the type that the weight has."""

    def __init__(self, base: WeightSource, lora: Lora) -> None:
        """Raises CheckpointError where `lora` does not fit `base`."""
        check_fits(lora, base)
        self._base, self.lora = base, lora

    def names(self) -> Collection[str]:
        """Every weight that there is."""
        return self._base.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight."""
        return self._base.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """The type that it is stored in."""
        return self._base.dtype(name)

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """The merged values of a weight, or those of `rows` of the first dimension."""
        weight, layer = self._base.read(name, rows), self._adapted(name)
        return weight if layer is None else self.lora.delta(layer, rows).add_(weight).to(weight.dtype)

    def copy_to(self, name: str, first: int, out: Tensor) -> None:
        """Copy the weight by its source's way, and merge where it stands; by way of the host into a narrower type."""
        layer, dtype = self._adapted(name), self.dtype(name)
        if layer is not None and out.itemsize < dtype.itemsize:
            super().copy_to(name, first, out)
            return
        self._base.copy_to(name, first, out)
        if layer is not None and out.numel():
            with scopes.place("host") if out.device.type == "cpu" else nullcontext():
                self.lora.add_to(out, layer, first, dtype)

    def _adapted(self, name: str) -> str | None:
        """The layer whose weight that is, if it is adapted."""
        layer = name.removesuffix(".weight")
        return layer if layer != name and layer in self.lora.layers else None


class AdapterSource(WeightSource):
    """Weights with a LoRA beside them, named as peft's layers name them.

    An adapted layer's own weights are `<layer>.base_layer.*`, its factors
    `<layer>.lora_{A,B}.default.weight`.
    """

    def __init__(self, base: WeightSource, lora: Lora, rank: int | None = None) -> None:
        """Raises CheckpointError where `lora` does not fit `base` or has another rank than `rank`."""
        check_fits(lora, base, rank)
        self._base = RenamedSource(base, lambda name: _beside_lora(name, lora.layers))
        self._lora = lora

    def names(self) -> Collection[str]:
        """Every weight and every factor."""
        return [*self._base.names(), *self._lora.factors.names()]

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight."""
        return self._of(name).shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """The type that it is stored in."""
        return self._of(name).dtype(name)

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """The values of a weight, or those of `rows` of the first dimension."""
        return self._of(name).read(name, rows)

    def copy_to(self, name: str, first: int, out: Tensor) -> None:
        """Copy values by the way of whose they are."""
        self._of(name).copy_to(name, first, out)

    def _of(self, name: str) -> WeightSource:
        return self._lora.factors if name in self._lora.factors.names() else self._base


def _beside_lora(name: str, layers: Collection[str]) -> str:
    layer, _, kind = name.rpartition(".")
    return f"{layer}.base_layer.{kind}" if layer in layers else name
