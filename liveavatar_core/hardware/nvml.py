"""What the driver tells of the cards (NVML), typed. Free of torch; a reading that cannot be had is None, with why.

Every function takes the library as an argument: the module pynvml, or something with the same functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

SLOWED_BY = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x04: "power cap",
}
"""Bits of NVML's clock event reasons that make a card slower than its data sheet."""


@dataclass(frozen=True, kw_only=True)
class CardProcess:
    """A process that computes on a card."""

    pid: int
    name: str
    """The name that NVML gives; empty where it may not tell."""
    used_bytes: int | None
    """Memory of the card that it holds; None: NVML does not tell (containers, WSL)."""


@dataclass(frozen=True, kw_only=True)
class CardState:
    """One card now. What was not read is None, with why in `missing`."""

    index: int
    """The number of the card in the machine, whatever CUDA_VISIBLE_DEVICES says."""
    uuid: str
    name: str | None
    """The name that the driver gives."""
    total_bytes: int | None
    free_bytes: int | None
    processes: tuple[CardProcess, ...] | None
    uncorrected_ecc_errors: int | None
    """Since the driver was loaded."""
    slowed_by: tuple[str, ...] | None
    """Values of SLOWED_BY."""
    pcie_generation: int | None
    """Now; cards at rest lower it."""
    pcie_generation_max: int | None
    """The newest PCIe generation that both card and slot have."""
    pcie_width: int | None
    """Lanes that the link has."""
    pcie_width_max: int | None
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DriverState:
    """The driver, and the cards that CUDA_VISIBLE_DEVICES leaves visible."""

    version: str | None
    cuda: str | None
    """The newest CUDA that the driver serves, `13.0`."""
    cards: tuple[CardState, ...] = ()
    without_peer_access: tuple[tuple[int, int], ...] = ()
    """Pairs of indices that cannot read each other's memory."""
    missing: dict[str, str] = field(default_factory=dict)


def read_driver(library: Any = None, environment: Mapping[str, str] = os.environ) -> DriverState:
    """Ask the driver. Without one, or where it fails midway, the fields say so; nothing is raised.

    `library`: pynvml by default.
    """
    library = library or _pynvml()
    missing: dict[str, str] = {}
    with _session(library, missing) as ready:
        if not ready:
            return DriverState(version=None, cuda=None, missing=missing)
        ask = _Asker(library, missing)
        handles = _visible(library, ask, environment.get("CUDA_VISIBLE_DEVICES"))
        return DriverState(
            version=ask("version", library.nvmlSystemGetDriverVersion),
            cuda=ask("cuda", lambda: _cuda(library.nvmlSystemGetCudaDriverVersion_v2())),
            cards=tuple(_read_card(library, handle) for handle in handles),
            without_peer_access=ask("peer access", lambda: tuple(_strangers(library, handles))) or (),
            missing=missing,
        )


class _Asker:
    """Asks for one reading at a time; what fails is None and goes to `missing`."""

    def __init__(self, library: Any, missing: dict[str, str]) -> None:
        self._error, self._missing = library.NVMLError, missing

    def __call__(self, name: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except self._error as error:
            self._missing[name] = str(error)
            return None


@contextmanager
def _session(library: Any, missing: dict[str, str]) -> Iterator[bool]:
    """Whether NVML is there; it is closed again afterwards."""
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        missing["driver"] = str(error)
        yield False
        return
    try:
        yield True
    finally:
        _Asker(library, {})("shutdown", library.nvmlShutdown)


def _visible(library: Any, ask: _Asker, wanted: str | None) -> list[Any]:
    """Handles in CUDA's order: indices, UUIDs or their beginnings, MIG devices; up to the first that is none.

    A card that is cut into MIG devices is none itself: its devices stand in its place.
    """
    count = ask("count", library.nvmlDeviceGetCount) or 0
    every = [ask(f"card {index}", partial(library.nvmlDeviceGetHandleByIndex, index)) for index in range(count)]
    if wanted is None:
        return [each for handle in every if handle is not None for each in _devices_of(library, handle)]
    found = []
    for word in wanted.split(","):
        handle = _handle(library, ask, every, word.strip())
        if handle is None:
            break  # as CUDA does: what follows an unknown name is invisible
        found.append(handle)
    return found


def _devices_of(library: Any, handle: Any) -> list[Any]:
    """The MIG devices of a card; the card itself where it is not cut into any."""
    quietly = _Asker(library, {})
    mode = quietly("MIG mode", lambda: library.nvmlDeviceGetMigMode(handle))
    if mode is None or mode[0] != library.NVML_DEVICE_MIG_ENABLE:
        return [handle]
    most = quietly("MIG devices", lambda: library.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
    made = (quietly("MIG", partial(library.nvmlDeviceGetMigDeviceHandleByIndex, handle, each)) for each in range(most))
    return [device for device in made if device is not None]


def _handle(library: Any, ask: _Asker, every: list[Any], word: str) -> Any:
    if word.isdigit():
        card = every[int(word)] if int(word) < len(every) else None
        return None if card is None else next(iter(_devices_of(library, card)), None)  # of MIG devices the first
    if word.startswith("MIG-"):
        return ask(word, lambda: library.nvmlDeviceGetHandleByUUID(word))
    if not word.startswith("GPU-"):
        return None
    uuids = [ask("uuid", partial(library.nvmlDeviceGetUUID, handle)) or "" for handle in every if handle is not None]
    named = [handle for handle, uuid in zip(every, uuids, strict=False) if uuid.startswith(word)]
    return named[0] if len(named) == 1 else None


def _read_card(library: Any, handle: Any) -> CardState:
    missing: dict[str, str] = {}
    ask = _Asker(library, missing)
    memory = ask("memory", lambda: library.nvmlDeviceGetMemoryInfo(handle))
    uncorrected = (library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, library.NVML_VOLATILE_ECC)
    pcie = {name: ask(name, partial(getattr(library, function), handle)) for name, function in _PCIE.items()}
    return CardState(
        index=ask("index", lambda: library.nvmlDeviceGetIndex(handle)) or 0,
        uuid=ask("uuid", lambda: library.nvmlDeviceGetUUID(handle)) or "unknown",
        name=ask("name", lambda: _name(library, handle)),
        total_bytes=memory.total if memory else None,
        free_bytes=memory.free if memory else None,
        processes=ask("processes", lambda: tuple(_processes(library, handle))),
        uncorrected_ecc_errors=ask("ECC errors", lambda: library.nvmlDeviceGetTotalEccErrors(handle, *uncorrected)),
        slowed_by=ask("clocks", lambda: _slowed_by(library.nvmlDeviceGetCurrentClocksEventReasons(handle))),
        **pcie,
        missing=missing,
    )


_PCIE = {
    "pcie_generation": "nvmlDeviceGetCurrPcieLinkGeneration",
    "pcie_generation_max": "nvmlDeviceGetMaxPcieLinkGeneration",
    "pcie_width": "nvmlDeviceGetCurrPcieLinkWidth",
    "pcie_width_max": "nvmlDeviceGetMaxPcieLinkWidth",
}


def _name(library: Any, handle: Any) -> str:
    """The name; a MIG device's says that it is one, so that it passes for no whole card."""
    name = str(library.nvmlDeviceGetName(handle))
    cut = _Asker(library, {})("MIG", lambda: library.nvmlDeviceIsMigDeviceHandle(handle))
    return f"{name} MIG" if cut and " MIG" not in name else name


def _processes(library: Any, handle: Any) -> Iterator[CardProcess]:
    for process in library.nvmlDeviceGetComputeRunningProcesses(handle):
        name = _Asker(library, {})("name", partial(library.nvmlSystemGetProcessName, process.pid))
        yield CardProcess(pid=process.pid, name=name or "", used_bytes=process.usedGpuMemory)


def _slowed_by(bits: int) -> tuple[str, ...]:
    return tuple(text for bit, text in SLOWED_BY.items() if bits & bit)


def _strangers(library: Any, handles: list[Any]) -> Iterator[tuple[int, int]]:
    for second, other in enumerate(handles):
        for first, one in enumerate(handles[:second]):
            if library.nvmlDeviceGetP2PStatus(one, other, _P2P_READ) != library.NVML_P2P_STATUS_OK:
                yield first, second


_P2P_READ = 0
"""NVML_P2P_CAPS_INDEX_READ, which pynvml defines as a tuple."""


def _cuda(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _pynvml() -> Any:
    import pynvml

    return pynvml
