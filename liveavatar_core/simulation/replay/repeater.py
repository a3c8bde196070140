"""The shortcut: where identical units are called alike, the first calls execute and later ones repeat their effect.

A unit is a block, an injector, a whole transformer, a network of the VAE. Calls with the same signature (weights,
arguments, phase, what the previous unit left behind) execute until two in a row did exactly the same: the same
allocations and frees in the same order, the same operations, the same shape of results. A unit that has shown so once
is settled: what it makes at its first call it has made, and of each other signature one call is enough. From then on
nothing is executed: the tracker gets the recorded program, the results are empty tensors of the recorded sizes. A call
that left behind what cannot be expressed so, and one that would not fit on the card, is executed.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from liveavatar_core import scopes, torch_private
from liveavatar_core.parallel.fill import plain_name
from liveavatar_core.parallel.fsdp_units import BLOCKS, VAE
from liveavatar_core.parallel.offload import is_brought
from liveavatar_core.simulation.allocator import NoRoom
from liveavatar_core.simulation.cost.operation_counter import WorkCounter
from liveavatar_core.simulation.memory_tracker import MemoryTracker
from liveavatar_core.simulation.replay.effects import CallEffect
from liveavatar_core.simulation.replay.layers import ReplayedLayer
from liveavatar_core.simulation.replay.recorder import CallRecorder
from liveavatar_core.simulation.replay.signatures import Signatures, UnitSignature

INJECTOR = re.compile(r"audio_injector\.(injector|injector_adain_layers)\.\d+")
Listener = Callable[[nn.Module, tuple[Any, ...]], None]


class Key(NamedTuple):
    """Signature of a call: calls that share it do the same."""

    scope: scopes.Scope
    """Phase, category, place."""
    unit: UnitSignature
    """Class and weights of the unit."""
    arguments: Any
    """What decides how much memory and work they take."""
    left: tuple | None
    """Signature of what the previous unit left behind; None: nothing."""


class UnitReplayer:
    """Watches calls of units and repeats what it has seen twice."""

    def __init__(self, tracker: MemoryTracker, work: WorkCounter) -> None:
        self._tracker, self._recorder = tracker, CallRecorder(tracker, work)
        self._signatures = Signatures(tracker.place_of, tracker.number_of)
        self._seen: dict[Any, CallEffect | None] = {}
        self._proven: dict[Any, CallEffect] = {}
        self._settled: set[Any] = set()
        self.executed, self.repeated = 0, 0
        self.listener: Listener | None = None
        """Hears of every call of a unit, executed or repeated, with its arguments."""

    def watch(self, parts: Mapping[str, nn.Module]) -> None:
        """Watch the units of the parts of a system."""
        for unit in (unit for name, part in parts.items() for unit in units_to_watch(name, part)):
            # of a block that is brought, hooks bring the next one and take this one away: they run as they would
            method = "forward" if is_brought(unit) else torch_private.CALL_METHOD
            setattr(unit, method, partial(self._call, weakref.ref(unit), method))

    def _call(self, reference: weakref.ref, method: str, *args: Any, **kwargs: Any) -> Any:
        unit, arguments = reference(), (args, kwargs)
        assert unit is not None  # it is being called
        if self.listener is not None:
            self.listener(unit, args)
        key = self._key(unit, arguments)
        effect = self._proven.get(key)
        if effect is not None and self._tracker.fits(effect.program):
            left = self._tracker.number_of(self._leftover(unit))
            with suppress(NoRoom):  # executed, it runs out of memory where it would
                result = self._recorder.repeat(effect, arguments, left, partial(self._leave, unit))
                self.repeated += 1
                _hand_over(unit, args, result)
                return result
        self.executed += 1
        execute = partial(getattr(type(unit), method), unit, *args, **kwargs)
        result, effect = self._recorder.record(execute, arguments, partial(self._leftover, unit))
        self._judge(key, effect)
        return result

    def _judge(self, key: Key, effect: CallEffect | None) -> None:
        """Whether the next call with that signature may be repeated."""
        seen = self._seen.get(key)
        if effect is not None and seen is not None and effect.same_as(seen):
            self._settled.add(key.unit)
        elif effect is None or key in self._seen or key.unit not in self._settled:
            self._seen[key] = effect
            return
        self._proven[key] = effect

    def _key(self, unit: nn.Module, arguments: Any) -> Key:
        left = self._leftover(unit)
        return Key(
            scope=scopes.current(),
            unit=self._signatures.of_unit(unit),
            arguments=self._signatures.of_value(arguments),
            left=None if left is None else self._signatures.of_tensor(left),
        )

    def _leftover(self, unit: nn.Module) -> torch.Tensor | None:
        """The gathered bytes that the last unit left to be freed by the next."""
        sharded = self._any_sharded(unit)
        return None if sharded is None else torch_private.gathered_leftover(sharded)

    def _leave(self, unit: nn.Module, left: torch.Tensor | None) -> None:
        """Put `left` where `fully_shard` would keep it; what was there is freed."""
        sharded = self._any_sharded(unit)
        if sharded is not None:
            torch_private.set_gathered_leftover(sharded, left)

    def _any_sharded(self, unit: nn.Module) -> FSDPModule | None:
        """One of the units that `fully_shard` made of a module, which all keep one leftover; None: it made none."""
        return next(self._signatures.sharded_modules(unit), None)


def _hand_over(unit: nn.Module, arguments: tuple, result: Any) -> None:
    """Show a result to the hooks by which transformers reads what layers give; those of `fully_shard` are repeated."""
    for hook in torch_private.forward_hooks(unit):
        if getattr(hook, "__module__", "") == "transformers.utils.output_capturing":
            hook(unit, arguments, result)


def units_to_watch(name: str, part: nn.Module) -> Iterator[nn.Module]:
    """What repeats: the whole transformer, blocks of it and of the encoders, injectors, networks of the VAE."""
    if name == "transformer":
        yield part
    taken = set()
    for path, module in part.named_modules():
        plain = plain_name(path).removesuffix(torch_private.WRAPPER).removesuffix(".")
        matches = VAE.fullmatch(plain) if name == "vae" else BLOCKS.fullmatch(plain) or INJECTOR.fullmatch(plain)
        if matches and plain not in taken and not isinstance(module, ReplayedLayer):
            taken.add(plain)
            yield module
