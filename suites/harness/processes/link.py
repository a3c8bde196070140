"""How a rank and whoever commands it talk: frozen dataclasses as JSON text, read strictly. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from liveavatar_core import errors, strict
from liveavatar_core.errors import BadData, LiveAvatarError, MemoryShortage, OutOfMemory
from suites.harness.messages import RankReport

T = TypeVar("T")
MESSAGE_LIMIT = 4000


class Message(Protocol):
    """Any frozen dataclass whose fields `strict` can read back."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def encoded(message: Message) -> str:
    """`message` as JSON text."""
    return json.dumps(strict.plain(message), allow_nan=False)


def decoded(kind: type[T], text: str, where: str) -> T:
    """The `kind` (a dataclass) that `text` holds. Raises BadData, which names `where` and the field that is wrong."""
    try:
        data: Any = json.loads(text)
    except ValueError as error:
        raise BadData(f"{where}: {error}", "both ends of a link must be of one version") from error
    return strict.build(kind, data, where)


@dataclass(frozen=True, kw_only=True)
class RankCommand:
    """One thing that a rank is to do next."""

    name: str
    """The command's name, one of those that the target knows."""
    argument: str = ""
    """The argument: a dataclass as JSON text; empty where the command takes none."""

    def argument_as(self, kind: type[T]) -> T:
        """The argument as a `kind`; raises BadData where it is none."""
        return decoded(kind, self.argument, f"argument of {self.name!r}")


@dataclass(frozen=True, kw_only=True)
class Done:
    """The answer to a command that has nothing else to say."""


@dataclass(frozen=True, kw_only=True)
class ErrorReport:
    """An exception as it crosses the border: rebuilt on the other side if it is one of the core's, else as text."""

    type_name: str
    """Name of the exception's class."""
    message: str
    """The exception's text, at most MESSAGE_LIMIT characters; of the core's errors the first line."""
    next_step: str = ""
    """The next step of one of the core's errors; else empty."""
    of_core: bool = False
    """Whether its class is one of liveavatar_core.errors."""
    shortage: MemoryShortage | None = None
    """The numbers of an OutOfMemory; else None."""

    @classmethod
    def of(cls, error: BaseException) -> ErrorReport:
        """`error`, ready to be sent."""
        name = type(error).__name__
        if isinstance(error, LiveAvatarError) and getattr(errors, name, None) is type(error):
            shortage = error.shortage if isinstance(error, OutOfMemory) else None
            return cls(type_name=name, message=error.what, next_step=error.next_step, of_core=True, shortage=shortage)
        return cls(type_name=name, message=str(error)[:MESSAGE_LIMIT])

    @property
    def typed(self) -> LiveAvatarError | None:
        """The exception itself, if it is one of the core's."""
        if self.shortage is not None:
            return OutOfMemory(self.shortage)
        return getattr(errors, self.type_name)(self.message, self.next_step) if self.of_core else None


class Link(Protocol):
    """A rank's connection to whoever commands it: who it is, what it is told, and the way to answer."""

    rank: int
    """The rank's number, 0 .. world_size - 1."""
    world_size: int
    """The number of ranks in the group."""
    rendezvous: str
    """The place where the ranks meet, as torch's `init_method`."""

    def job(self, kind: type[T]) -> T:
        """The job of every rank of the group, as a `kind`. Raises BadData where it is something else."""

    def next_command(self) -> RankCommand | None:
        """Wait for the next command; None when there are no more."""

    def commands(self) -> Iterator[RankCommand]:
        """Every command until there are no more."""

    def reply(self, message: Message) -> None:
        """Answer the last command."""

    def report(self, report: RankReport) -> None:
        """Tell how far this rank is; may be called from any thread. The last one outlives a rank that fails."""

    def failing(self) -> None:
        """Tell that this rank fails and still writes down what it holds: it is not ended before that is done."""
