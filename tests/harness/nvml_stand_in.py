"""A stand-in for pynvml: the same functions over cards in memory, and its errors when told to fail."""

from __future__ import annotations

from types import SimpleNamespace

GIB = 1024**3


class StandInNvml:
    """What the project calls of pynvml. `fail_after`: calls of nvmlDeviceGetMemoryInfo that still succeed."""

    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    NVML_P2P_STATUS_OK = 0
    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        """As of pynvml."""

    def __init__(self, *names: str, total_gib: float = 24, driver: bool = True, fail_after: int | None = None):
        self.cards = [
            SimpleNamespace(index=index, name=name, uuid=f"GPU-{index:04d}", used=GIB, processes=[], slowed=0)
            for index, name in enumerate(names)
        ]
        self.total, self.driver, self.fail_after, self.reads = int(total_gib * GIB), driver, fail_after, 0

    def cut(self, index: int, parts: int) -> None:
        """Cut a card into MIG devices, beside which there is room for one more."""
        card = self.cards[index]
        card.parts = [
            SimpleNamespace(**vars(card) | {"uuid": f"MIG-{index}{part}", "part": True}) for part in range(parts)
        ]

    def lose(self, index: int) -> None:
        """Have a card fall off the bus: it still has a name, and nothing can be read of it."""
        self.cards[index].lost = True

    def nvmlDeviceGetMigMode(self, card):  # noqa: N802
        return [int(hasattr(card, "parts"))] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, card):  # noqa: N802
        return len(card.parts) + 1

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card, index):  # noqa: N802
        if index >= len(card.parts):
            raise self.NVMLError("Not Found")
        return card.parts[index]

    def nvmlDeviceIsMigDeviceHandle(self, card):  # noqa: N802
        return hasattr(card, "part")

    def nvmlInit(self):  # noqa: N802
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self):  # noqa: N802
        pass

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion_v2(self):
        return 13000

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        for card in self.cards:
            for each in (card, *getattr(card, "parts", ())):
                if each.uuid == uuid:
                    return each
        raise self.NVMLError("Not Found")

    def nvmlDeviceGetMemoryInfo(self, card):  # noqa: N802
        self.reads += 1
        if getattr(card, "lost", False) or (self.fail_after is not None and self.reads > self.fail_after):
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(total=self.total, free=self.total - card.used, used=card.used)

    def nvmlDeviceGetComputeRunningProcesses(self, card):  # noqa: N802
        return card.processes

    def nvmlSystemGetProcessName(self, pid):  # noqa: N802
        return "python3"

    def nvmlDeviceGetCurrentClocksEventReasons(self, card):  # noqa: N802
        return card.slowed

    def nvmlDeviceGetPowerUsage(self, card):  # noqa: N802
        return 700_000

    def nvmlDeviceGetTotalEccErrors(self, card, *kind):  # noqa: N802
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetP2PStatus(self, one, other, kind):  # noqa: N802
        return self.NVML_P2P_STATUS_OK

    def __getattr__(self, name):
        """nvmlDeviceGetIndex, …Name, …UUID and the PCIe readings."""
        if name.startswith("nvmlDeviceGet"):
            word = name.removeprefix("nvmlDeviceGet").lower()
            return lambda card: getattr(card, word, 4)
        raise AttributeError(name)
