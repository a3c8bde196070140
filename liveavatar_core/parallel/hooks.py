"""Places in a run where whoever counts memory or time may have something done; in a real run nothing is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from liveavatar_core.parallel.devices import Memory

Waits = Literal["communication", "waiting"]
"""What a rank does beside its own work: it exchanges with others, or it waits for what another one has yet to make."""


def _nothing_around(*_: Tensor) -> AbstractContextManager[None]:
    return nullcontext()


def _untimed(kind: Waits) -> AbstractContextManager[None]:
    return nullcontext()


def _nothing(unit: nn.Module, memory: Memory) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class RunHooks:
    """What is done beside a run."""

    exchange: Callable[..., AbstractContextManager[None]] = _nothing_around
    """Given the buffers that a collective sends and fills: a context that the collective runs in."""
    beside_work: Callable[[Waits], AbstractContextManager[None]] = _untimed
    """Given what a rank does beside its own work: a context that it does this in."""
    shards_rest: Callable[[nn.Module, Memory], None] = _nothing
    """Given a unit of `fully_shard` whose shards rest in host memory, and the memories, once its hooks are in place."""


_hooks: ContextVar[RunHooks] = ContextVar("hooks", default=RunHooks())  # noqa: B039 - frozen


def current() -> RunHooks:
    """The hooks of the calling thread."""
    return _hooks.get()


@contextmanager
def exchange(*buffers: Tensor, kind: Waits = "communication") -> Iterator[None]:
    """The context in which every collective over `buffers` runs."""
    hooks = _hooks.get()
    with hooks.exchange(*buffers), hooks.beside_work(kind):
        yield


def gather() -> AbstractContextManager[None]:
    """The context in which weights of a unit are gathered, until they are there."""
    return _hooks.get().beside_work("communication")


@contextmanager
def hooked(hooks: RunHooks) -> Iterator[None]:
    """Do what `hooks` say while inside, in place of what was said before."""
    token = _hooks.set(hooks)
    try:
        yield
    finally:
        _hooks.reset(token)
