"""What NCCL writes beside a rank's log becomes facts of the record: version, links, ways, channels, warnings.

The lines have the form of NCCL's source (src/init.cc, src/graph/topo.cc, src/transport/p2p.cc, shm.cc, net.cc, nvls.cc)
and of logs in its issues: github.com/NVIDIA/nccl 952, 1189, 1358, 1412, 1637, github.com/NVIDIA/nccl-tests 188, 213, 252,
github.com/tinygrad/open-gpu-kernel-modules 17. Names of hosts are made up.
"""

# ruff: noqa: E501 - lines of logs
from __future__ import annotations

from pathlib import Path

import pytest

from suites.harness.probes.nccl_log import nccl_log, parse_nccl, read_nccl
from suites.harness.records.nccl import NcclWarning

H200 = """\
lab1:4015:4652 [0] NCCL INFO Bootstrap: Using eth0:192.0.2.7<0>
lab1:4015:4652 [0] NCCL INFO NCCL version 2.27.5+cuda12.9
lab1:4015:4652 [0] NCCL INFO ncclCommInitRank comm 0x5b41 rank 0 nranks 4 cudaDev 0 nvmlDev 0 busId 18000 - Init START
lab1:4015:4652 [0] NCCL INFO === System : maxBw 370.8 totalBw 370.8 ===
lab1:4015:4652 [0] NCCL INFO CPU/0 (1/1/2)
lab1:4015:4652 [0] NCCL INFO + PCI[48.0] - PCI/16000 (1000c0301000100b)
lab1:4015:4652 [0] NCCL INFO               + PCI[48.0] - GPU/18000 (0)
lab1:4015:4652 [0] NCCL INFO                             + NVL[370.8] - NVS/0
lab1:4015:4652 [0] NCCL INFO               + PCI[0.2] - NIC/19000
lab1:4015:4652 [0] NCCL INFO                             + NET[50.0] - NET/3 (aa24210003bd70c4/1/50.000000)
lab1:4015:4652 [0] NCCL INFO NVLS multicast support is available on dev 0 (NVLS_NCHANNELS 16)
lab1:4015:4652 [0] NCCL INFO comm 0x5b41 rank 0 nRanks 4 nNodes 1 localRanks 4 localRank 0 MNNVL 0
lab1:4015:4652 [0] NCCL INFO Channel 00/24 :    0   1   2   3
lab1:4015:4652 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM
lab1:4015:4652 [0] NCCL INFO Channel 01/0 : 0[0] -> 1[1] via P2P/CUMEM
lab1:4015:4652 [0] NCCL INFO 24 coll channels, 16 collnet channels, 16 nvls channels, 32 p2p channels, 32 p2p channels per peer
lab1:4015:4652 [0] NCCL INFO ncclCommInitRank comm 0x5b41 rank 0 nranks 4 cudaDev 0 nvmlDev 0 busId 18000 - Init COMPLETE
lab1:4015:4652 [0] NCCL INFO comm 0x7c02 rank 0 nRanks 3 nNodes 1 localRanks 3 localRank 0 MNNVL 0
lab1:4015:4652 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM
"""
RTX_4090 = """\
NCCL version 2.18.5+cuda12.1
lab2:1036:1042 [0] NCCL INFO + SYS[10.0] - CPU/1
lab2:1036:1042 [0] NCCL INFO + PCI[24.0] - GPU/1000 (0)
lab2:1036:1042 [0] NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct
lab2:1036:1042 [0] NCCL INFO Channel 01 : 0[0] -> 1[1] via SHM/direct/direct
lab2:1036:1042 [0] NCCL INFO 2 coll channels, 0 nvls channels, 2 p2p channels, 2 p2p channels per peer

lab2:1036:1042 [0] graph/paths.cc:308 NCCL WARN P2P is disabled between connected GPUs 1 and 0. You can repress this message with NCCL_IGNORE_DISABLED_P2P=1.
"""
RECEIVES = """\
lab3:871:990 [1] NCCL INFO Channel 00/0 : 1[1] -> 2[0] [receive] via NET/IB/2/GDRDMA
[2025-07-01 10:11:12] lab3:871:990 [1] misc/socket.cc:441 NCCL WARN socketFinalizeAccept: wrong type 4 != 3
lab3:871:990 [1] misc/socket.cc:441 NCCL WARN socketFinalizeAccept: wrong type 4 != 3
"""
SENDS = "lab2:870:980 [0] NCCL INFO Channel 00/0 : 1[1] -> 2[0] [send] via NET/IB/2/GDRDMA\n"


def test_cards_behind_a_switch():
    report = parse_nccl({0: H200})
    assert (report.version, report.cuda, report.nodes, report.communicators) == ("2.27.5", "12.9", 1, (4, 3))
    assert report.links == {"PCI": 48.0, "NVL": 370.8}, "of cards; a network card's is none between them"
    assert report.transports == {"P2P/CUMEM": 2}, "a second communicator takes the same way"
    assert (report.collective_channels, report.nvls_channels, report.peer_channels) == (24, 16, 32)
    assert report.warnings == ()


def test_cards_without_peer_access():
    report = parse_nccl({1: RTX_4090})
    assert (report.version, report.cuda, report.nodes) == ("2.18.5", "12.1", None)
    assert report.links == {"SYS": 10.0, "PCI": 24.0}
    assert report.transports == {"SHM/direct/direct": 2}
    assert (report.collective_channels, report.nvls_channels) == (2, 0)
    [warning] = report.warnings
    assert warning.rank == 1
    assert warning.text.startswith("P2P is disabled between connected GPUs 1 and 0.")


def test_both_ends_of_a_network_channel_are_one_and_a_repeated_warning_too():
    report = parse_nccl({0: SENDS, 1: RECEIVES})
    assert report.transports == {"NET/IB/2/GDRDMA": 1}
    assert report.warnings == (NcclWarning(rank=1, text="socketFinalizeAccept: wrong type 4 != 3"),)


@pytest.mark.parametrize("text", ["", "NCCL is fine\n", "lab1:1:2 [0] NCCL", "\x00\xff\n"])
def test_what_it_does_not_say_is_not_known(text: str):
    report = parse_nccl({0: text})
    assert (report.version, report.collective_channels, report.transports, report.warnings) == (None, None, {}, ())


def test_a_warning_without_end_is_cut(tmp_path: Path):
    lines = [f"lab1:1:2 [0] misc/ibvwrap.cc:1 NCCL WARN port {number} is down" for number in range(1000)]
    nccl_log(tmp_path, 0).write_text("\n".join(lines))
    report = read_nccl(tmp_path, (0, 1))
    assert report is not None
    assert len(report.warnings) == 20


def test_ranks_without_nccl_leave_nothing(tmp_path: Path):
    assert read_nccl(tmp_path, (0, 1)) is None
    nccl_log(tmp_path, 0).touch()
    assert read_nccl(tmp_path, (0, 1)) is None
