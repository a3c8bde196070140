"""Where the seconds of a run went, rank by rank, and how its frames came. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from liveavatar_core.errors import BadData

TimePart = Literal["load", "compile", "encode", "prefill", "denoise", "decode", "communication", "waiting", "other"]
PARTS_OF_TIME: dict[TimePart, str] = {
    "load": "weights to where they stand",
    "compile": "graphs and kernels made",
    "encode": "prompt, voice and portrait",
    "prefill": "the sink's keys and values",
    "denoise": "the transformer",
    "decode": "the VAE",
    "communication": "exchanges and gathers that the work waited for",
    "waiting": "for what another rank had yet to make",
    "other": "the video written, and what is in no phase",
}
"""Parts of a rank's time, in the order of a run, with what each is. A prediction has the same names."""
ONCE: tuple[TimePart, ...] = ("load", "compile", "encode", "prefill")
"""Parts that a video has once; of the others each clip has its own."""


@dataclass(frozen=True, kw_only=True)
class PartSeconds:
    """What one part took on one rank."""

    rank: int
    """The rank's number."""
    part: TimePart
    """The part; its seconds are in no other one."""
    seconds: tuple[float, ...]
    """Of a part of ONCE its seconds in the whole run; of any other those in each measured clip."""


@dataclass(frozen=True, kw_only=True)
class FrameArrivals:
    """When the frames of the measured clips were in host memory, block by block; columns of one length."""

    seconds: tuple[float, ...] = ()
    """Seconds from the request for the video."""
    frames: tuple[int, ...] = ()
    """Video frames that came."""

    def __post_init__(self) -> None:
        if len(self.seconds) != len(self.frames):
            raise BadData(f"{len(self.seconds)} arrivals of {len(self.frames)} blocks", "give as many of each")
        if any(later < earlier for earlier, later in pairwise(self.seconds)):
            raise BadData("blocks arrived before those that they follow", "give seconds from one clock, in order")
