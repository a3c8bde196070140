"""Key-value caches: explicit objects, one a noise level. Any object with the methods of `Cache` can stand in.

Legend: B batch, H heads of this rank, L tokens written, T tokens read, D head width.
"""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.pinned_memory import pinned

FLOAT8_MAX = 448.0
"""The largest number of float8 e4m3fn."""


class Cache(Protocol):
    """What the transformer asks of a cache."""

    tokens: int
    """Tokens that there is room for."""

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
        width: int | None = None,
    ) -> Self:
        """Empty cache for `tokens` tokens and `heads` heads (this rank's share of params.num_heads).

        `width`: values of a head; params.head_dim if None.
        """
        shape = (batch, tokens, heads, width or params.head_dim)
        k_layers, v_layers = (_zeros(params.num_layers, shape, dtype, device) for _ in "kv")
        return cls(k_layers, v_layers)

    def write(self, layer: int, k_BHLD: Tensor, v_BHLD: Tensor, start: int) -> None:
        """Put keys and values of `layer` at tokens start .. start+L."""
        end = start + k_BHLD.shape[2]
        self.k_layers[layer][:, :, start:end].copy_(k_BHLD, non_blocking=True)
        self.v_layers[layer][:, :, start:end].copy_(v_BHLD, non_blocking=True)

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Views of the first `tokens` tokens."""
        return self.k_layers[layer][:, :, :tokens], self.v_layers[layer][:, :, :tokens]


class HostKVCache(KVCache):
    """A cache in host memory that brings one layer at a time to the card.

    Copies either way are pinned and in the order of the card's stream: nobody waits for them but the card.
    """

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
        width: int | None = None,
    ) -> Self:
        """Like KVCache.allocate; `device` is the card that computes, the storage is (pinned) host memory."""
        card, shape = torch.device(device), (batch, tokens, heads, width or params.head_dim)
        with scopes.place("host"):
            k_layers, v_layers = (_zeros(params.num_layers, shape, dtype, "cpu") for _ in "kv")
        if card.type == "cuda":
            k_layers, v_layers = (list(map(pinned, layers)) for layers in (k_layers, v_layers))
        return cls(k_layers, v_layers, card)

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Copies on the card, also where card and host are one device: their bytes are real there too."""
        with scopes.category("kv_cache"):
            k_BHTD, v_BHTD = (x.to(self.card, copy=True, non_blocking=True) for x in super().read(layer, tokens))
        return k_BHTD, v_BHTD


class Float8KVCache:
    """A cache in float8 (e4m3): each token of a head has a scale of its own, so that no write disturbs another."""

    def __init__(self, values: KVCache, scales: KVCache, dtype: torch.dtype) -> None:
        """`values` in float8, `scales` one wide; either on the card or in host memory. `dtype`: what `read` gives."""
        self.values, self.scales, self.dtype = values, scales, dtype
        self.tokens = values.tokens

    def write(self, layer: int, k_BHLD: Tensor, v_BHLD: Tensor, start: int) -> None:
        """Round keys and values of `layer` into tokens start .. start+L."""
        (k_values, k_scales), (v_values, v_scales) = _rounded(k_BHLD), _rounded(v_BHLD)
        self.values.write(layer, k_values, v_values, start)
        self.scales.write(layer, k_scales, v_scales, start)

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `tokens` tokens, as `dtype`; no other layer stands there in full."""
        with scopes.category("kv_cache"):
            pairs = zip(self.values.read(layer, tokens), self.scales.read(layer, tokens), strict=True)
            k_BHTD, v_BHTD = (values.to(self.dtype).mul_(scales) for values, scales in pairs)
        return k_BHTD, v_BHTD


def _rounded(x_BHLD: Tensor) -> tuple[Tensor, Tensor]:
    """Values in float8 and their scales BHL1; the largest of a token becomes float8's largest."""
    largest_BHL1 = x_BHLD.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-12)
    scales_BHL1 = largest_BHL1.float() / FLOAT8_MAX
    return (x_BHLD / scales_BHL1).to(torch.float8_e4m3fn), scales_BHL1


def _zeros(layers: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> list[Tensor]:
    """A BHTD view for each layer of memory shaped BTHD."""
    with scopes.category("kv_cache"):
        made = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
    return [x.transpose(1, 2) for x in made]
