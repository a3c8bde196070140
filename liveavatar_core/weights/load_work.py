"""What loading took. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LoadWork:
    """What it took one rank to have its weights in place."""

    seconds: float
    """Seconds of loading, sharding included."""
    read_seconds: float
    """Seconds of that spent on reading files straight to where the values stand."""
    read_bytes: int
    """Bytes read from files; 0 where values were made."""
