"""Loading, quickly: of layers that are alike the first few are loaded, and the others repeat what the last one did.

A part is built with that few layers. Once the last of a family is loaded, the same allocations are noted for each layer
that the recipe has beyond; each of those holds what loading it would have left, and has one of the loaded layers work
for it: in turn, so that two layers in a row are never worked by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from liveavatar_core.config import Recipe
from liveavatar_core.errors import LiveAvatarError
from liveavatar_core.model.transformer import LiveAvatarTransformer
from liveavatar_core.parallel.load import load_granularity
from liveavatar_core.parallel.offload import is_brought
from liveavatar_core.simulation.allocator import NoRoom
from liveavatar_core.simulation.replay.effects import CallEffect
from liveavatar_core.simulation.replay.recorder import CallRecorder

LAYERS = 3
"""Layers of each family that are loaded: the first may differ from the others, two more show that they do the same."""

MEMBER = re.compile(r"(.*)\.(\d+)")
"""Path of a unit in a list of them."""


class NotAlike(LiveAvatarError):
    """Layers of one family were loaded differently, so that no layer can stand for the others."""


def shortened(recipe: Recipe) -> Recipe:
    """`recipe` with LAYERS of each family that is loaded unit by unit; itself where layers cannot stand for others."""
    if not recipe.deployment.reshard_after_forward:
        return recipe  # what a layer gathered stays: layers that are worked by one would gather once
    model = recipe.model
    transformer = model.transformer
    layers = min(transformer.num_layers, LAYERS)
    injectors = len(transformer.audio_inject_layers)
    if load_granularity(recipe) == "fine":
        injectors = min(injectors, LAYERS)
    short = replace(transformer, num_layers=layers, audio_inject_layers=(0,) * injectors)
    text = replace(model.text_encoder, num_layers=min(model.text_encoder.num_layers, LAYERS))
    return replace(recipe, model=replace(model, transformer=short, text_encoder=text))


def _family_sizes(recipe: Recipe) -> dict[str, int]:
    """How many layers each family has, by the path of its list; no two parts have lists of one path."""
    transformer = recipe.model.transformer
    injectors = len(transformer.audio_inject_layers)
    return {
        "blocks": transformer.num_layers,
        "audio_injector.injector": injectors,
        "audio_injector.injector_adain_layers": injectors,
        "encoder.block": recipe.model.text_encoder.num_layers,
    }


class ReplayedLayer(nn.Module):
    """A layer that holds weights of its own and has another one, equal to it, work for it."""

    def __init__(self, worker: nn.Module, weights: list[Tensor]) -> None:
        super().__init__()
        self._worker = (worker,)  # in a tuple, so that it is no part of this one
        self._held = weights
        self._loans: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        """For each weight of the worker: itself, its own values where they rest, and what it is lent."""

    def own(self) -> None:
        """Make parameters of the weights: not before sharding has taken what it finds around this layer."""
        self.weights = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight in self._held)
        self._held = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer would do. Weights that hooks of this one have brought are lent to the worker."""
        (worker,) = self._worker
        if not is_brought(self):
            return worker(*args, **kwargs)
        if not self._loans:
            self._loans = [(weight, weight.data, mine) for weight, mine in self._pairs(worker)]
        for weight, _, mine in self._loans:
            weight.data = mine
        try:
            return worker.forward(*args, **kwargs)
        finally:
            for weight, home, _ in self._loans:
                weight.data = home

    def _pairs(self, worker: nn.Module) -> Iterator[tuple[nn.Parameter, Tensor]]:
        return zip(worker.parameters(), self.weights, strict=True)


@dataclass(kw_only=True)
class LayerReplay:
    """A `deploy.load.LoadUnit` that repeats what loading layers of one family did."""

    recorder: CallRecorder
    """Records and repeats."""
    recipe: Recipe
    """The whole one; what is loaded is `shortened`."""
    _effects: dict[str, list[CallEffect | None]] = field(default_factory=dict)

    def __call__(self, part: nn.Module, path: str, load: Callable[[], None]) -> None:
        """Load a unit; behind the last of a family, all that the recipe has beyond."""
        member = MEMBER.fullmatch(path)
        size = _family_sizes(self.recipe).get(member[1]) if member else None
        if member is None or size is None:
            load()
        else:
            self._load_member(part, path, part.get_submodule(member[1]), size, load)
        if not path:
            self._finish(part)

    def _load_member(self, part: nn.Module, path: str, family: nn.Module, size: int, load: Callable[[], None]) -> None:
        assert isinstance(family, nn.ModuleList)
        if len(family) == size:
            load()
            return
        _, effect = self.recorder.record(lambda: _weights_after(load, part, path), ())
        effects = self._effects.setdefault(path.rpartition(".")[0], [])
        effects.append(effect)
        if len(effects) == len(family):
            self._extend(family, size, effects)

    def _extend(self, family: nn.ModuleList, size: int, effects: list[CallEffect | None]) -> None:
        *_, before, last = effects
        if before is None or last is None or not last.same_as(before):
            raise NotAlike("layers of one family were not loaded alike", "simulate with execute_everything")
        loaded = list(family)
        for index in range(len(loaded), size):
            worker = loaded[1 + (index - 1) % (len(loaded) - 1)]
            family.append(ReplayedLayer(worker, self._loaded_as(last)))

    def _loaded_as(self, effect: CallEffect) -> list[Tensor]:
        """The weights of one more layer. Raises OutOfMemory where the card's allocator has no room for them."""
        try:
            return self.recorder.repeat(effect, ())
        except NoRoom:
            self.recorder.run_out(effect)
            raise

    def _finish(self, part: nn.Module) -> None:
        """Everything is loaded."""
        for layer in part.modules():
            if isinstance(layer, ReplayedLayer):
                layer.own()
        if isinstance(part, LiveAvatarTransformer):
            part.params = self.recipe.model.transformer


def _weights_after(load: Callable[[], None], part: nn.Module, path: str) -> list[Tensor]:
    """What this rank holds of a unit once it is loaded."""
    load()
    weights = (weight for weight in part.get_submodule(path).parameters())
    held = [weight.to_local() if isinstance(weight, DTensor) else weight.data for weight in weights]
    return [weight for weight in held if weight.untyped_storage().nbytes()]
