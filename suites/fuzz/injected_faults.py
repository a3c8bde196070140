"""Faults to plant, each a small mistake that somebody could make, for fuzzing to find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from liveavatar_core.encoders import audio
from liveavatar_core.model.cache import HostKVCache, KVCache
from liveavatar_core.parallel.ulysses import Ulysses
from liveavatar_core.pipeline import denoising

Patch = tuple[Any, str, Any]
"""Owner, attribute, what takes its place."""


def cache_not_freed() -> Patch:
    """Keep layers of a KV cache that were brought to the card there for ever."""
    original = HostKVCache.read

    def read(self: Any, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        made = original(self, layer, tokens)
        self.__dict__.setdefault("kept", {})[layer] = made
        return made

    return HostKVCache, "read", read


def uneven_heads() -> Patch:
    """Put each rank's heads back one further than they belong, where they do not divide."""
    original = Ulysses.to_tokens

    def to_tokens(self: Any, x_BhLD: Tensor, frames: int, tokens: int, num_heads: int) -> Tensor:
        x_BHlD = original(self, x_BhLD, frames, tokens, num_heads)
        return x_BHlD.roll(1, dims=1) if num_heads % self.ranks else x_BHlD

    return Ulysses, "to_tokens", to_tokens


def dtype_dropped() -> Patch:
    """Make KV caches in bfloat16, whatever was asked for."""
    original: Any = KVCache.__dict__["allocate"].__func__

    def allocate(cls: Any, /, *args: Any, dtype: torch.dtype, **kwargs: Any) -> Any:
        return original(cls, *args, dtype=torch.bfloat16 if dtype == torch.float32 else dtype, **kwargs)

    return KVCache, "allocate", classmethod(allocate)


def wrong_clip() -> Patch:
    """Leave the second prefill out: later clips see the frame before the first one in place of that clip's own."""

    def renew(*_: Any) -> None:
        pass

    return denoising, "renew", renew


def leak_per_clip() -> Patch:
    """Never let go of what a clip starts from."""
    original, kept = denoising.BlockSource.noise_of, []

    def noise_of(*args: Any) -> Tensor:
        kept.append(original(*args))
        return kept[-1]

    return denoising.BlockSource, "noise_of", noise_of


def voice_drifts() -> Patch:
    """Give features of the voice, 30 a second, to frames one by one, of which there are 25."""
    return audio, "audio_frame_of", lambda frame: frame


FAULTS: dict[str, Callable[[], Patch]] = {
    "cache_not_freed": cache_not_freed,
    "uneven_heads": uneven_heads,
    "dtype_dropped": dtype_dropped,
    "wrong_clip": wrong_clip,
    "leak_per_clip": leak_per_clip,
    "voice_drifts": voice_drifts,
}
"""Every fault by its name: a function that returns what it patches."""


@contextmanager
def injected(name: str) -> Iterator[None]:
    """Inside, the core has the fault of that name; none for an empty name."""
    if not name:
        yield
        return
    owner, attribute, replacement = FAULTS[name]()
    with patch.object(owner, attribute, replacement):
        yield
