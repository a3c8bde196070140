"""What NCCL said of itself in a run. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class NcclWarning:
    """A warning that a rank's NCCL wrote."""

    rank: int
    """The rank's number."""
    text: str
    """What it says; said several times it stands here once."""


@dataclass(frozen=True, kw_only=True)
class NcclReport:
    """Version, topology, ways and channels of NCCL, from what it wrote beside the ranks' logs. None: it did not say."""

    version: str | None
    """Version of the library that was loaded, which need not be the one that torch was built with."""
    cuda: str | None
    """Version of CUDA that it was built with."""
    nodes: int | None
    """Machines that its communicators reach over."""
    communicators: tuple[int, ...]
    """Sizes of the communicators that there were, the largest first."""
    links: dict[str, float] = field(default_factory=dict)
    """GB/s of each kind of link that it found: NVL (NVLink), PCI, SYS (between processors); of several the slowest."""
    transports: dict[str, int] = field(default_factory=dict)
    """Channels from card to card by the way they take: `P2P/CUMEM`, `SHM/direct/direct`, `NET/IB/0`."""
    collective_channels: int | None
    """Channels of collectives, most of any communicator."""
    nvls_channels: int | None
    """Channels that switches add up on (NVLink SHARP); 0: there is none."""
    peer_channels: int | None
    """Channels of sends and receives."""
    warnings: tuple[NcclWarning, ...] = ()
    """What it warned of, rank by rank."""
