"""How far a video is: a bar on a terminal, a line a clip elsewhere. Both go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from liveavatar_core.cli.process_group import is_first_rank

Advance = Callable[[], None]
"""Call it once for each block that is finished."""

_ROOM_FOR_TIME = 50


def show_progress(clips: int, blocks_per_clip: int) -> AbstractContextManager[Advance]:
    """Follow a video of that many clips and blocks; of several ranks the first one shows it."""
    if not is_first_rank():
        return nullcontext(lambda: None)
    console = Console(stderr=True)
    if console.is_terminal:
        return _bar(console, clips, blocks_per_clip)
    return _lines(clips, blocks_per_clip)


@contextmanager
def _bar(console: Console, clips: int, blocks_per_clip: int) -> Iterator[Advance]:
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=None)]
    if console.width >= _ROOM_FOR_TIME:
        columns += [TextColumn("{task.completed}/{task.total} blocks"), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        task = progress.add_task(f"clip 1/{clips}", total=clips * blocks_per_clip)
        finished = 0

        def advance() -> None:
            nonlocal finished
            finished += 1
            clip = min(finished // blocks_per_clip + 1, clips)
            progress.update(task, advance=1, description=f"clip {clip}/{clips}")

        yield advance


@contextmanager
def _lines(clips: int, blocks_per_clip: int) -> Iterator[Advance]:
    finished, started = 0, time.monotonic()

    def advance() -> None:
        nonlocal finished, started
        finished += 1
        if finished % blocks_per_clip == 0:
            now = time.monotonic()
            print(
                f"clip {finished // blocks_per_clip}/{clips}: {now - started:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            started = now

    yield advance
