"""Key-value caches: explicit objects, one a noise level. Any object with the methods of `Cache` can stand in.

Legend: B batch, H heads of this rank, L tokens written, T tokens read, D head width.
"""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.model.params import TransformerParams


class Cache(Protocol):
    """What the transformer asks of a cache."""

    tokens: int
    """Capacity."""

    def write(self, layer: int, k_BHLD: Tensor, v_BHLD: Tensor, start: int) -> None:
        """Put keys and values of `layer` at tokens start .. start+L."""

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `tokens` tokens, each BHTD, on the device that computes."""


class KVCache:
    """Keys and values of every layer on the card; written in place, read as views."""

    def __init__(self, k_layers: list[Tensor], v_layers: list[Tensor]) -> None:
        """One BHTD tensor a layer, T the capacity."""
        self.k_layers, self.v_layers = k_layers, v_layers
        self.tokens = k_layers[0].shape[2]

    @classmethod
    def allocate(
        cls,
        params: TransformerParams,
        batch: int,
        tokens: int,
        heads: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> Self:
        """Empty cache for `tokens` tokens and `heads` heads (this rank's share of params.num_heads)."""
        shape = (batch, tokens, heads, params.head_dim)
        k_layers, v_layers = (_zeros(params.num_layers, shape, dtype, device) for _ in "kv")
        return cls(k_layers, v_layers)

    def write(self, layer: int, k_BHLD: Tensor, v_BHLD: Tensor, start: int) -> None:
        """Put keys and values of `layer` at tokens start .. start+L."""
        end = start + k_BHLD.shape[2]
        self.k_layers[layer][:, :, start:end].copy_(k_BHLD)
        self.v_layers[layer][:, :, start:end].copy_(v_BHLD)

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Views of the first `tokens` tokens."""
        return self.k_layers[layer][:, :, :tokens], self.v_layers[layer][:, :, :tokens]


class HostKVCache(KVCache):
    """A cache in host memory that brings one layer at a time to the card."""

    def __init__(self, k_layers: list[Tensor], v_layers: list[Tensor], card: torch.device) -> None:
        """`card`: where `read` puts a layer."""
        super().__init__(k_layers, v_layers)
        self.card = card

    @classmethod
    def allocate(
        cls,
        params: TransformerParams,
        batch: int,
        tokens: int,
        heads: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> Self:
        """Like KVCache.allocate; `device` is the card that computes, the storage is (pinned) host memory."""
        card, shape = torch.device(device), (batch, tokens, heads, params.head_dim)
        pinned = card.type == "cuda"
        with scopes.place("host"):
            k_layers, v_layers = (_zeros(params.num_layers, shape, dtype, "cpu", pinned) for _ in "kv")
        return cls(k_layers, v_layers, card)

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Copies on the card, also where card and host are one device: their bytes are real there too."""
        with scopes.category("kv_cache"):
            k_BHTD, v_BHTD = (x.to(self.card, copy=True) for x in super().read(layer, tokens))
        return k_BHTD, v_BHTD


def _zeros(
    layers: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str, pinned: bool = False
) -> list[Tensor]:
    """A BHTD view for each layer of memory shaped BTHD."""
    with scopes.category("kv_cache"):
        made = [torch.zeros(shape, dtype=dtype, device=device, pin_memory=pinned) for _ in range(layers)]
    return [x.transpose(1, 2) for x in made]
