"""Predicted seconds: each operation takes what its FLOPs or its bytes ask of the card's data sheet, the larger.

Free of torch. Computing, card memory, the link and the host bus are added up as if nothing overlapped: an upper figure
of a perfect implementation, and its parts are the breakdown that people compare. The executed code tells which
collectives may run beside kernels (FSDP's gathers, on their own stream) and not how much of them does, so the lower
figure hides them behind kernels for as long as there are any.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from liveavatar_core.hardware.cards import Card


class Operation(NamedTuple):
    """One kind of operation that ran; the counter beside it says how often."""

    phase: str
    """Where it ran."""
    kind: str
    """card: a kernel; cpu: work in host memory; host: a copy between card and host; link: a collective that is waited
    for at once; gather: one of weights, on a stream of its own."""
    dtype: str
    """What was multiplied, as `bfloat16`."""
    flops: int
    """Floating-point operations."""
    nbytes: int
    """Bytes read and written, or sent."""
    name: str = ""
    """The operation's own name, as `aten.mm`."""


@dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """Predicted seconds of some phases on one card."""

    compute_seconds: float = 0.0
    """Seconds of kernels that the peak rate limits."""
    memory_seconds: float = 0.0
    """Seconds of kernels that the memory bandwidth limits."""
    communication_seconds: float = 0.0
    """Seconds of collectives, at the link's rate."""
    host_seconds: float = 0.0
    """Seconds of copies between card and host, and of work done in host memory."""
    gather_seconds: float = 0.0
    """What of communication_seconds gathers weights, and may run beside kernels."""

    @property
    def seconds(self) -> float:
        """All of it, one after the other."""
        return self.compute_seconds + self.memory_seconds + self.communication_seconds + self.host_seconds

    @property
    def communication_share(self) -> float:
        """Share of the time on the link between cards, nothing overlapping; 0 without any work."""
        return self.communication_seconds / self.seconds if self.seconds else 0.0

    @property
    def hidden_seconds(self) -> float:
        """Most that gathers of weights can hide behind kernels."""
        return min(self.gather_seconds, self.compute_seconds + self.memory_seconds)

    @property
    def least_seconds(self) -> float:
        """Seconds with as much of the gathers hidden as can be."""
        return self.seconds - self.hidden_seconds

    @property
    def least_communication_share(self) -> float:
        """Share of `least_seconds` that nothing hides; 0 without any work."""
        return (self.communication_seconds - self.hidden_seconds) / self.least_seconds if self.seconds else 0.0


HOST_MEMORY_BYTES_PER_SECOND = 50e9
"""An assumption: two channels of DDR5-5600 move 2 x 8 bytes x 5.6e9 = 89.6 GB/s on paper, of which some 55 % are
reached. No card's data sheet says what host it is put into."""

HOST_FLOPS_PER_SECOND = 1.0e12
"""An assumption, as above: 8 cores x 2 units of 256 bits (8 float32) x 2 (multiply and add) x 4 GHz = 1.02e12."""


def estimate_time(work: Counter[Operation], card: Card, phases: tuple[str, ...]) -> TimeEstimate:
    """Price the operations of `phases` on `card`."""
    spent = {"compute": 0.0, "memory": 0.0, "link": 0.0, "gather": 0.0, "host": 0.0}
    for operation, times in work.items():
        if operation.phase in phases:
            limit, seconds = _price(operation, card)
            spent[limit] += times * seconds
    return TimeEstimate(
        compute_seconds=spent["compute"],
        memory_seconds=spent["memory"],
        communication_seconds=spent["link"] + spent["gather"],
        host_seconds=spent["host"],
        gather_seconds=spent["gather"],
    )


def _price(operation: Operation, card: Card) -> tuple[str, float]:
    if operation.kind in ("link", "gather"):
        return operation.kind, operation.nbytes / (card.link_gb_s * 1e9)
    if operation.kind == "host":
        return "host", operation.nbytes / (card.host_link_gb_s * 1e9)
    if operation.kind == "cpu":
        moving, computing = operation.nbytes / HOST_MEMORY_BYTES_PER_SECOND, operation.flops / HOST_FLOPS_PER_SECOND
        return "host", max(moving, computing)
    computing = operation.flops / (card.peak_tflops(operation.dtype) * 1e12) if operation.flops else 0.0
    moving = operation.nbytes / (card.memory_bandwidth_gb_s * 1e9)
    return ("compute", computing) if computing > moving else ("memory", moving)
