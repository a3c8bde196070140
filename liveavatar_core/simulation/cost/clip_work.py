"""The work of a run, clip by clip."""

from __future__ import annotations

from collections import Counter

from liveavatar_core.simulation.cost.operation_counter import WorkCounter
from liveavatar_core.simulation.cost.roofline import Operation


class ClipWork:
    """Tells the work of the first clip and of the last one apart, whatever the number of clips between."""

    def __init__(self, work: WorkCounter) -> None:
        """`work`: counts operations of the whole run."""
        self._work = work
        self._before: Counter[Operation] = Counter()
        self.first: Counter[Operation] = Counter()
        """Operations until the first clip ended."""
        self.last: Counter[Operation] = Counter()
        """Operations of the last clip that ended."""
        self.made = 0
        """Clips that ended."""
        self.left_out = 0
        """Clips among them that were counted and not executed."""

    @property
    def so_far(self) -> Counter[Operation]:
        """Operations until now."""
        return Counter(self._work.operations)

    def end(self) -> None:
        """A clip ends here."""
        now = self._work.operations
        self.last = Counter(
            {kind: count - self._before[kind] for kind, count in now.items() if count != self._before[kind]}
        )
        self.first = self.first if self.made else self.last
        self._before, self.made = Counter(now), self.made + 1

    def leave_out(self, clips: int, work: Counter[Operation]) -> None:
        """Count clips that are not executed, and take `work` together."""
        self._work.operations.update(work)
        self._before.update(work)
        self.made += clips
        self.left_out += clips
