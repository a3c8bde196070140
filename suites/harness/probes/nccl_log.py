"""What NCCL wrote down beside a rank's log (NCCL_DEBUG=INFO): version, links, transports, channels, warnings. No torch.

Lines are those of NCCL 2.18 to 2.28, as its source writes them (src/init.cc, src/channel.cc, src/transport/*.cc,
src/graph/topo.cc) and its issues quote them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from suites.harness.records.nccl import NcclReport, NcclWarning

LINE = re.compile(r"^\S+?:\d+:\d+ \[-?\d+\] (?P<file>\S+:\d+ )?NCCL (?P<level>INFO|WARN) (?P<text>.*)$")
"""`host:pid:thread [card] NCCL INFO text`; a warning has the place in NCCL's source before its name."""
STAMP = re.compile(r"^\[?\d{4}-\d\d-\d\d[ T][\d:.]+\]?\s*")
"""Of versions that write the time of warnings before the line."""
VERSION = re.compile(r"NCCL version (\d+\.\d+\.\d+)(?:\+cuda([\d.]+))?")
CONNECTION = re.compile(
    r"Channel (\d+(?:/\d+)?) : (\d+)\[[^\]]*\] -> (\d+)\[[^\]]*\] (?:\[(?:send|receive)\] )?via (\S+)"
)
CHANNELS = re.compile(r"(\d+) coll channels,(?: \d+ collnet channels,)? (\d+) nvls channels, (\d+) p2p channels")
COMMUNICATOR = re.compile(r"comm \S+ rank \d+ n[Rr]anks (\d+)(?: nNodes (\d+))?")
LINK = re.compile(r"\+ (NVL|PCI|SYS|C2C|NET)\[(\d+(?:\.\d+)?)\] - (\S+)")
MOST_WARNINGS = 20
"""Warnings of a rank that are kept; a broken link repeats its own without end."""


def nccl_log(folder: Path, rank: int) -> Path:
    """The file that takes what NCCL says on a rank."""
    return folder / f"rank{rank}.nccl.log"


def read_nccl(folder: Path, ranks: Sequence[int]) -> NcclReport | None:
    """What all of `ranks` left in `folder`; None where none left anything."""
    logs = {rank: nccl_log(folder, rank) for rank in ranks}
    texts = {rank: log.read_text(errors="replace") for rank, log in logs.items() if log.is_file()}
    return parse_nccl(texts) if any(texts.values()) else None


def parse_nccl(texts: dict[int, str]) -> NcclReport:
    """What logs say, by rank."""
    lines = {rank: list(_lines(text)) for rank, text in texts.items()}
    told = [text for each in lines.values() for level, text in each if level == "INFO"]
    versions = [found for text in texts.values() if (found := VERSION.search(text))]  # some say it without a prefix
    channels = [tuple(map(int, found.groups())) for text in told if (found := CHANNELS.search(text))]
    collective, nvls, peer = (max(numbers) for numbers in zip(*channels, strict=True)) if channels else (None,) * 3
    groups = [found for text in told if (found := COMMUNICATOR.search(text))]
    return NcclReport(
        version=versions[0][1] if versions else None,
        cuda=versions[0][2] if versions else None,
        nodes=max((int(found[2]) for found in groups if found[2]), default=None),
        communicators=tuple(sorted({int(found[1]) for found in groups}, reverse=True)),
        links=_links(told),
        transports=_transports(told),
        collective_channels=collective,
        nvls_channels=nvls,
        peer_channels=peer,
        warnings=tuple(warning for rank, each in lines.items() for warning in _warnings(rank, each)),
    )


def _lines(text: str) -> Iterable[tuple[str, str]]:
    """Level and text of each line that is NCCL's."""
    for line in text.splitlines():
        if found := LINE.match(STAMP.sub("", line)):
            yield found["level"], found["text"].strip()


def _transports(told: Iterable[str]) -> dict[str, int]:
    """How many channels from one card to another take each way, as NCCL names it: `P2P/CUMEM`, `SHM/direct/direct`."""
    ways = {found.groups() for text in told if (found := CONNECTION.search(text))}  # both ends may tell of one
    return dict(sorted(Counter(way for *_, way in ways).items()))


def _links(told: Iterable[str]) -> dict[str, float]:
    """GB/s of each kind of link between cards, switches and processors; of several the slowest."""
    found: dict[str, float] = {}
    for text in told:
        if (link := LINK.search(text)) and not link[3].startswith(("NIC", "NET")) and link[1] != "NET":
            rate = float(link[2])
            found[link[1]] = min(rate, found.get(link[1], rate))
    return found


def _warnings(rank: int, lines: Iterable[tuple[str, str]]) -> list[NcclWarning]:
    texts = dict.fromkeys(text for level, text in lines if level == "WARN")
    return [NcclWarning(rank=rank, text=text) for text in list(texts)[:MOST_WARNINGS]]
