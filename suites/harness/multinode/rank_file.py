"""What a rank that torchrun started leaves in the shared folder: one file, whole after each answer. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from liveavatar_core.errors import BadData
from liveavatar_core.files import write_atomically
from suites.harness.messages import ClipTime, Loaded, RankReport
from suites.harness.processes.link import ErrorReport, decoded, encoded


@dataclass(frozen=True, kw_only=True)
class CardIdentity:
    """The card that a rank worked on, as its driver tells."""

    name: str | None
    """The card's name, form factor included."""
    total_bytes: int | None
    """Bytes of memory on the card."""
    driver: str | None
    """Version of the driver."""


@dataclass(frozen=True, kw_only=True)
class RankFile:
    """Everything that one rank told."""

    card: CardIdentity | None = None
    """The card that it works on; None without cards, and before one was taken."""
    answered: int = 0
    """The number of commands that were answered."""
    loaded: Loaded | None = None
    """What it told when it had loaded."""
    clips: tuple[ClipTime, ...] = ()
    """The times of each clip, in order."""
    last_report: RankReport = RankReport()
    """The last that it told of its run."""
    finished: bool = False
    """Whether it came to its end."""
    error: ErrorReport | None = None
    """The error that ended it; None: none did."""

    def write(self, path: Path) -> None:
        """Replace `path`, whole or not at all."""
        write_atomically(path, encoded(self))


def read_rank_file(path: Path) -> RankFile:
    """The file of a rank; an empty one where it left none. Raises BadData for a file that is none."""
    try:
        return decoded(RankFile, path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return RankFile()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: {error}", "run the job again") from error
