"""Readings beside the allocator's: what NVML says is in use on a card, and what a process holds in host memory.

Free of torch. A reading that cannot be had is None, and `problem` says why.
"""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from liveavatar_core.hardware.nvml import SLOWED_BY

SAMPLE_SECONDS = 0.05
"""Seconds between two readings of NVML; one takes some 50 microseconds."""


class DeviceSampler:
    """Keeps the most that was in use on a card in each phase, as NVML tells, while it is entered."""

    def __init__(self, library: Any, uuid: str, seconds: float = SAMPLE_SECONDS) -> None:
        """`library`: pynvml, or something with the same functions. `uuid`: of the card."""
        self._library, self._uuid, self._seconds = library, uuid, seconds
        self.peaks: dict[str, int] = {}
        self.problem: str | None = None
        """Why there are no readings, or none after some moment."""
        self.slowed_by: set[str] = set()
        """Values of SLOWED_BY that were seen."""
        self.most_watts = 0.0
        """Highest power that was seen."""
        self._phase = "load"
        self._handle: Any = None
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="NVML", daemon=True)

    def start_phase(self, phase: str) -> None:
        """Count readings for `phase` from now on."""
        self._read()
        self._phase = phase
        self._read()

    def __enter__(self) -> Self:
        try:
            self._library.nvmlInit()
            self._handle = self._library.nvmlDeviceGetHandleByUUID(self._uuid)
        except self._library.NVMLError as error:
            self.problem = f"NVML: {error}"
            return self
        self._read()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._handle is not None:
            self._read()
            self._ended.set()
            self._thread.join()
            with contextlib.suppress(self._library.NVMLError):
                self._library.nvmlShutdown()

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds):
            self._read()

    def _read(self) -> None:
        with self._lock:
            if self._handle is None or self.problem is not None:
                return
            try:
                used = self._library.nvmlDeviceGetMemoryInfo(self._handle).used
            except self._library.NVMLError as error:
                self.problem = f"NVML failed in phase {self._phase}: {error}"
                self.peaks.pop(self._phase, None)  # half a phase's peak would pass for the whole one's
                return
            self.peaks[self._phase] = max(used, self.peaks.get(self._phase, 0))
            with contextlib.suppress(self._library.NVMLError):  # not every card tells
                self._read_clocks()

    def _read_clocks(self) -> None:
        bits = self._library.nvmlDeviceGetCurrentClocksEventReasons(self._handle)
        self.slowed_by |= {text for bit, text in SLOWED_BY.items() if bits & bit}
        self.most_watts = max(self.most_watts, self._library.nvmlDeviceGetPowerUsage(self._handle) / 1000)


class HostMemory:
    """The most that this process has held in host memory in each phase, as Linux tells."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        """`proc`: the process's folder."""
        self._proc, self._phase = proc, "load"
        self.peaks: dict[str, int] = {}

    def start_phase(self, phase: str) -> None:
        """Count readings for `phase` from now on."""
        self.read()
        self._phase = phase
        with contextlib.suppress(OSError):
            (self._proc / "clear_refs").write_text("5")  # begins the high-water mark anew

    def read(self) -> None:
        """Read the process's high-water mark, for the phase that it is in."""
        try:
            found = re.search(r"^VmHWM:\s+(\d+) kB$", (self._proc / "status").read_text(), re.MULTILINE)
        except OSError:
            return
        if found:
            self.peaks[self._phase] = max(int(found[1]) * 1024, self.peaks.get(self._phase, 0))
