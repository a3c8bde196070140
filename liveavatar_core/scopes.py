"""What the running code is doing, for whoever counts bytes: its phase, the category and the place of new tensors.

The core says where it is (`with phase("denoise"), category("kv_cache")`); a meter such as the simulation's tracker
asks `current()`. Nothing in the core reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from functools import cache

PHASES = ("load", "encode", "prefill", "denoise", "decode")
CATEGORIES = ("parameters", "unsharded_parameters", "kv_cache", "activations", "decoder_cache")
PLACES = ("card", "host")


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where the code is; one value for each thread."""

    phase: str = "load"
    """One of PHASES."""
    category: str = "activations"
    """One of CATEGORIES: what tensors born here are for."""
    place: str = "card"
    """One of PLACES: which memory tensors born here stand in, where one device plays both (CPU runs)."""


_scope: ContextVar[Scope] = ContextVar("scope", default=Scope())  # noqa: B039 - frozen
_listeners: ContextVar[tuple[Callable[[str], None], ...]] = ContextVar("listeners", default=())
_SCOPE_OF = "liveavatar_scope"


def current() -> Scope:
    """The scope of the calling thread."""
    return _scope.get()


def enter(**changes: str) -> Token[Scope]:
    """Change the scope until `leave` is given the returned token. For hooks; elsewhere use the managers below."""
    return _scope.set(_changed(_scope.get(), *changes.items()))


@cache
def _changed(scope: Scope, *changes: tuple[str, str]) -> Scope:
    return replace(scope, **dict(changes))


def leave(token: Token[Scope]) -> None:
    """Return to the scope before the `enter` that gave this token."""
    _scope.reset(token)


class _Within:
    """A change of the scope. A class, as it is entered for every tensor that moves and generators take longer."""

    def __init__(self, **changes: str) -> None:
        self._changes = changes

    def __enter__(self) -> None:
        self._token = enter(**self._changes)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.__dict__.setdefault(_SCOPE_OF, current())  # the innermost scope gets hold of it first
        leave(self._token)


def scope_of(error: BaseException) -> Scope:
    """Where the code was when `error`, or its cause, was raised, as far as scopes saw it pass; else where it is now."""
    cause: BaseException | None = error
    while cause is not None:
        if _SCOPE_OF in cause.__dict__:
            return cause.__dict__[_SCOPE_OF]
        cause = cause.__cause__
    return current()


@contextmanager
def phases_told(listener: Callable[[str], None]) -> Iterator[None]:
    """Call `listener` with the phase whenever the calling thread enters one, or comes back to one.

    Those that listen already hear of it first.
    """
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def _tell(phase: str) -> None:
    for listener in _listeners.get():
        listener(phase)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Everything born inside belongs to this phase."""
    with _Within(phase=name):
        _tell(name)
        yield
    _tell(current().phase)


def category(name: str) -> AbstractContextManager[None]:
    """Everything born inside is for this."""
    return _Within(category=name)


def place(name: str) -> AbstractContextManager[None]:
    """Everything born inside stands in this memory."""
    return _Within(place=name)
