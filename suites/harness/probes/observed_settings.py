"""Settings that really acted: counted and looked up while a rank works, not copied from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from liveavatar_core import scopes
from liveavatar_core.model.transformer import Denoise
from liveavatar_core.parallel.system import System
from suites.harness.records.measurements import ObservedSettings


class SettingsObserver:
    """Takes note of what one rank does: forwards and their kernels, sizes, types and places of weights and caches."""

    def __init__(self, system: System, place_of: Callable[[Tensor], str], *, hooked: bool = True) -> None:
        """`place_of`: in which memory a tensor stands, card or host. `hooked`: else somebody calls `see`."""
        self._system, self._place_of = system, place_of
        self._forwards: Counter[str] = Counter()
        self._caches: set[str] = set()
        self._latent_sizes: set[str] = set()
        self._frame_sizes: set[str] = set()
        self._attention: Counter[str] = Counter()
        self._parameter_bytes = _bytes_by_dtype(system, place_of)
        if hooked and "transformer" in system.parts:
            system.transformer.register_forward_pre_hook(self.see)

    def see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Take note of a forward, if it is the transformer's."""
        if module is not self._system.parts.get("transformer"):
            return
        self._forwards[type(args[0]).__name__.lower()] += 1
        if isinstance(args[0], Denoise):
            self._caches |= {_words(tensor, self._place_of) for tensor in _tensors(args[0].cache)}
            self._latent_sizes.add(_size(args[0].latents_BCFHW.shape[-2:]))

    def see_frames(self, frames_JHWC: Tensor) -> None:
        """Take note of frames that were decoded."""
        self._frame_sizes.add(_size(frames_JHWC.shape[1:3]))

    def see_attention(self, kernel: str) -> None:
        """Take note of a kernel of attention, if it is the transformer's: encoders have others, and a mask."""
        if scopes.current().phase in ("prefill", "denoise"):
            self._attention[kernel] += 1

    def report(self, rank: int) -> ObservedSettings:
        """Everything seen so far, on rank `rank`."""
        return ObservedSettings(
            rank=rank,
            transformer_forwards=dict(self._forwards),
            parameter_bytes=self._parameter_bytes,
            kv_caches=tuple(sorted(self._caches)),
            latent_sizes=tuple(sorted(self._latent_sizes)),
            frame_sizes=tuple(sorted(self._frame_sizes)),
            attention_kernels=dict(self._attention),
        )


def device_place(tensor: Tensor) -> str:
    """The memory that a tensor stands in, card or host, where those are different devices."""
    return "card" if tensor.device.type == "cuda" else "host"


def _bytes_by_dtype(system: System, place_of: Callable[[Tensor], str]) -> dict[str, dict[str, int]]:
    """Bytes of weights (shards, where a part is sharded), by part, then by type and place."""
    held: dict[str, dict[str, int]] = {}
    for name, part in system.parts.items():
        bytes_of: Counter[str] = Counter()
        for tensor in (*part.parameters(), *part.buffers()):
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            bytes_of[_words(local, place_of)] += local.numel() * local.element_size()
        held[name] = dict(bytes_of)
    return held


def _size(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _words(tensor: Tensor, place_of: Callable[[Tensor], str]) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {place_of(tensor)}"


def _tensors(cache: object) -> Iterator[Tensor]:
    """One tensor of each kind that a cache, or what it is made of, keeps."""
    for value in vars(cache).values():
        if isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
            yield value[0]
        elif hasattr(value, "k_layers"):
            yield from _tensors(value)
