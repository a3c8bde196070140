"""What one executed call of a module did to memory, and how to do the same without executing it.

A value (arguments, results) is described by templates: tensors that were there before are named by their path in the
arguments, new tensors by the allocation of the call that they look into.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import torch

from liveavatar_core.simulation.alloc_events import MemoryProgram
from liveavatar_core.simulation.cost.roofline import Operation
from liveavatar_core.simulation.fake_tensors import empty_storage
from liveavatar_core.torch_private import storage_key

Path = tuple[tuple[str, Any], ...]
"""Steps from the arguments to a value: ("item", index or key) or ("attribute", name)."""


class NotReplayable(Exception):
    """A call left something behind that templates cannot express."""


class Known(NamedTuple):
    """An object that was among the arguments."""

    path: Path
    """Where the object is among the arguments."""


class View(NamedTuple):
    """A new tensor that looks into the storage of one that was among the arguments."""

    path: Path
    """Where that tensor is among the arguments."""
    geometry: tuple
    """Shape, strides, offset."""


class New(NamedTuple):
    """A tensor whose storage was allocated in the call."""

    number: int
    """Which allocation of the call's program."""
    nbytes: int
    """Bytes of the storage, not rounded."""
    dtype: torch.dtype
    """Type of the elements."""
    device: torch.device
    """Device that the tensor says it stands on."""
    geometry: tuple
    """Shape, strides, offset."""


class Built(NamedTuple):
    """A new container: a list, tuple, dict, or an object with attributes."""

    kind: type
    """The class of the container."""
    parts: tuple
    """(index, key or attribute, template) of each part."""


@dataclass(frozen=True, kw_only=True)
class CallEffect:
    """Everything that a call did."""

    program: MemoryProgram
    """Allocations and frees."""
    work: Mapping[Operation, int]
    """What was executed."""
    result: Any
    """Template of what it returned."""
    changes: tuple[tuple[Path, str, Any], ...]
    """Attributes of arguments that it set: owner, name, template."""
    leftover: Any
    """Template of what it left to the next unit; None: nothing."""

    def check(self) -> None:
        """Raise NotReplayable unless everything that the call left allocated is held by a template."""
        templates = (self.result, self.leftover, *(template for _, _, template in self.changes))
        held = {number for template in templates for number in _allocations_in(template)}
        if self.program.survivors.keys() != held:
            raise NotReplayable("something stays allocated that nothing holds")

    def same_as(self, other: CallEffect) -> bool:
        """Whether both did the same."""
        mine, others = ((each.work, each.result, each.changes, each.leftover) for each in (self, other))
        return mine == others and self.program.same_as(other.program)


def _allocations_in(template: Any) -> Iterator[int]:
    if isinstance(template, New):
        yield template.number
    elif isinstance(template, Built):
        for _, part in template.parts:
            yield from _allocations_in(part)


def parts_of(value: Any) -> Iterator[tuple[str, Any, Any]]:
    """The parts of a container: kind of step, index, key or name, part. Nothing for other values."""
    if isinstance(value, list | tuple):
        yield from (("item", index, part) for index, part in enumerate(value))
    elif isinstance(value, dict):
        yield from (("item", key, part) for key, part in value.items())
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (("attribute", item.name, getattr(value, item.name)) for item in fields(value))
    elif is_ours(value):
        yield from (("attribute", name, part) for name, part in vars(value).items())


def is_ours(value: Any) -> bool:
    """Whether a value is an object of this project that keeps its parts as attributes."""
    return type(value).__module__.startswith("liveavatar_core.") and hasattr(value, "__dict__")


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """`value` and all that it holds."""
    yield path, value
    for kind, name, part in parts_of(value):
        yield from walk(part, (*path, (kind, name)))


def at(value: Any, path: Path) -> Any:
    """What stands at `path` of `value`."""
    for kind, name in path:
        value = value[name] if kind == "item" else getattr(value, name)
    return value


class Arguments:
    """What a call was given, as it stood before. Keeps identities, no values: those must die when they would."""

    def __init__(self, value: Any) -> None:
        self._places: dict[int, Path] = {}
        self._storages: dict[int, Path] = {}
        self._contents: list[tuple[Path, dict[Any, Any]]] = []
        for path, part in walk(value):
            self._note(path, part)

    def _note(self, path: Path, part: Any) -> None:
        if isinstance(part, torch.Tensor):
            self._places.setdefault(id(part), path)
            self._storages.setdefault(storage_key(part.untyped_storage()), path)
            return
        contents = {name: _identity(held) for _, name, held in parts_of(part)}
        if contents:
            self._places.setdefault(id(part), path)
        if isinstance(part, list) or is_ours(part):
            self._contents.append((path, contents))

    def changes(self, value: Any, numbers: Mapping[int, int]) -> tuple[tuple[Path, str, Any], ...]:
        """Attributes that are not what they were; `value` is what the call was given."""
        found: list[tuple[Path, str, Any]] = []
        replaced: set[Path] = set()
        for path, before in self._contents:  # owners before what they hold
            if any(path[:depth] in replaced for depth in range(len(path) + 1)):
                continue
            owner = at(value, path)
            now = {name: part for _, name, part in parts_of(owner)}
            if isinstance(owner, list) and {name: _identity(part) for name, part in now.items()} != before:
                raise NotReplayable("a list was changed")
            changed = [name for name, part in now.items() if _identity(part) != before.get(name)]
            found += [(path, name, self.template(now[name], numbers)) for name in changed]
            replaced |= {(*path, ("attribute", name)) for name in changed}
        return tuple(found)

    def template(self, value: Any, numbers: Mapping[int, int]) -> Any:
        """How to make `value` again. `numbers`: of the call's allocations, by key of the storage."""
        known = self._places.get(id(value))
        if known is not None:
            return Known(known)
        if isinstance(value, torch.Tensor):
            return self._tensor(value, numbers)
        if isinstance(value, int | float | str | None):
            return value
        parts = tuple((name, self.template(part, numbers)) for _, name, part in parts_of(value))
        if not parts and not isinstance(value, list | tuple | dict):
            raise NotReplayable(f"a {type(value).__name__} came out of it")
        return Built(kind=type(value), parts=parts)

    def _tensor(self, tensor: torch.Tensor, numbers: Mapping[int, int]) -> View | New:
        storage = tensor.untyped_storage()
        geometry = (tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
        if storage_key(storage) in numbers:
            number = numbers[storage_key(storage)]
            return New(number, storage.nbytes(), tensor.dtype, tensor.device, geometry)
        if storage_key(storage) not in self._storages:
            raise NotReplayable("a tensor from elsewhere came out of it")
        return View(self._storages[storage_key(storage)], (tensor.dtype, *geometry))


def _identity(value: Any) -> Any:
    """What tells whether an attribute was set to something else."""
    return (value,) if isinstance(value, int | float | str | None) else id(value)


class TemplateFiller:
    """Makes values from templates, for one call with `arguments`."""

    def __init__(self, arguments: Any) -> None:
        self.arguments = arguments
        self.bases: dict[int, torch.Tensor] = {}
        """The tensor that stands for each allocation of the call."""

    def make(self, template: Any) -> Any:
        """The value that a template describes."""
        if isinstance(template, Known):
            return at(self.arguments, template.path)
        if isinstance(template, View):
            dtype, *geometry = template.geometry
            return at(self.arguments, template.path).view(dtype).as_strided(*geometry)
        if isinstance(template, New):
            return self._new(template)
        if isinstance(template, Built):
            return self._built(template)
        return template

    def _new(self, template: New) -> torch.Tensor:
        base = self.bases.get(template.number)
        if base is None:
            base = empty_storage(template.nbytes, template.dtype, template.device, *template.geometry)
            self.bases[template.number] = base
            return base
        return base.view(template.dtype).as_strided(*template.geometry)

    def _built(self, template: Built) -> Any:
        parts = [(name, self.make(part)) for name, part in template.parts]
        if issubclass(template.kind, list):
            return [part for _, part in parts]
        if issubclass(template.kind, tuple):
            values = [part for _, part in parts]
            return template.kind(*values) if hasattr(template.kind, "_fields") else tuple(values)
        made = template.kind.__new__(template.kind)
        if isinstance(made, dict):
            made.update(parts)
        for name, part in parts if not isinstance(made, dict) else ():
            object.__setattr__(made, name, part)
        return made
