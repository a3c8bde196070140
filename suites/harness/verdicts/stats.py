"""Statistics of a few samples, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Where samples lie."""

    value: float
    """Their median."""
    spread: float
    """Their interquartile range; 0 for one sample, of which nobody knows how far others lie from it (`spread_text`)."""
    n: int
    """How many."""

    @property
    def spread_text(self) -> str:
        """The spread for people: none of a single sample."""
        return f"{self.spread:.3g}" if self.n > 1 else "–"

    def interval(self) -> tuple[float, float]:
        """The middle half, taken as even about the median."""
        return self.value - self.spread / 2, self.value + self.spread / 2


def summarise(samples: Sequence[float]) -> Summary:
    """Median and interquartile range of at least one sample; NaN if any sample is not finite."""
    if not samples:
        raise ValueError("no samples")
    if not all(math.isfinite(sample) for sample in samples):
        return Summary(value=math.nan, spread=math.nan, n=len(samples))
    spread = quantile(samples, 0.75) - quantile(samples, 0.25)
    return Summary(value=quantile(samples, 0.5), spread=spread, n=len(samples))


def quantile(samples: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of finite samples lie, linear between neighbours."""
    ordered = sorted(samples)
    position = part * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def disjoint(first: Summary, second: Summary) -> bool:
    """Whether the two middle halves have nothing in common; noise alone rarely tears them apart."""
    low, high = sorted((first.interval(), second.interval()))
    return low[1] < high[0]
