"""What takes memory of a card and is no tensor, item by item, each figure with its source. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from liveavatar_core import strict
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadData

OVERHEADS_FILE = Path(__file__).with_name("overheads.toml")


@dataclass(frozen=True, kw_only=True)
class OverheadFigure:
    """A number in a data file."""

    value: float
    """In the unit that its name ends in."""
    source: str
    """Where it is from."""

    def __post_init__(self) -> None:
        if not 0 <= self.value < float("inf"):
            raise ValueError(f"value is {self.value}")


@dataclass(frozen=True, kw_only=True)
class ArchitectureOverheads:
    """Memory of one process on a card, whatever the others do."""

    context_gib: OverheadFigure
    """The CUDA context with the kernels that are loaded."""
    cublas_gib: OverheadFigure
    """Workspaces of cuBLAS and cuBLASLt."""
    cudnn_gib: OverheadFigure
    """Workspaces of the VAE's convolutions."""


@dataclass(frozen=True, kw_only=True)
class LinkOverheads:
    """Memory of NCCL between cards."""

    nccl_communicator_gib: OverheadFigure
    """Buffers of a communicator."""
    nccl_peer_gib: OverheadFigure
    """What all-to-all adds for each other rank."""


@dataclass(frozen=True, kw_only=True)
class _Overheads:
    architecture: dict[str, ArchitectureOverheads]
    link: dict[str, LinkOverheads]


@cache
def read_overheads(path: Path = OVERHEADS_FILE) -> _Overheads:
    """The tables of a file, by architecture and by link. Raises BadData naming file and key."""
    return strict.build(_Overheads, strict.read_toml(path), str(path))


def communicators(deployment: Deployment) -> int:
    """NCCL communicators that a rank opens: over all ranks, and over those of the transformer where they are fewer."""
    if deployment.num_cards == 1:
        return 0
    return 2 if deployment.enable_vae_parallel and deployment.num_gpus_dit > 1 else 1


def overhead_items(architecture: str, link: str, deployment: Deployment | None = None) -> dict[str, float]:
    """GiB by what takes them; NCCL for `deployment`, none without one. Raises BadData for what has no table."""
    known = read_overheads()
    if architecture not in known.architecture or link not in known.link:
        names = ", ".join((*known.architecture, *known.link))
        raise BadData(f"{OVERHEADS_FILE}: no tables for {architecture} and {link}", f"tables there: {names}")
    own, between = known.architecture[architecture], known.link[link]
    items = {item.name.removesuffix("_gib"): getattr(own, item.name).value for item in fields(own)}
    if deployment is None or deployment.num_cards == 1:
        return items
    opened = communicators(deployment) * between.nccl_communicator_gib.value
    return items | {"nccl": opened + (deployment.ulysses_size - 1) * between.nccl_peer_gib.value}
