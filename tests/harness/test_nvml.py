"""What is read of a driver: the visible cards, and reasons for what cannot be read."""

from __future__ import annotations

import pytest
from nvml_stand_in import StandInNvml

from liveavatar_core.hardware.nvml import read_driver

NAMES = ("NVIDIA A", "NVIDIA B", "NVIDIA C")


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, "ABC"),
        ("2,0", "CA"),
        ("GPU-0001", "B"),
        ("GPU-0002,1", "CB"),
        ("GPU-", ""),
        ("", ""),
        ("1,9,0", "B"),
        ("-1", ""),
    ],
)
def test_only_visible_cards_are_read_in_the_order_of_cuda(visible, names):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    cards = read_driver(StandInNvml(*NAMES), environment).cards
    assert "".join(str(card.name)[-1] for card in cards) == names


def test_a_driver_is_read():
    reading = read_driver(StandInNvml(*NAMES), {})
    assert (reading.version, reading.cuda, reading.without_peer_access) == ("580.65.06", "13.0", ())


def test_without_a_driver_the_reason_is_told():
    reading = read_driver(StandInNvml(driver=False), {})
    assert (reading.version, reading.cards) == (None, ())
    assert reading.missing == {"driver": "Driver Not Loaded"}


def test_a_card_that_fails_midway_is_null_with_a_reason():
    first, second = read_driver(StandInNvml(*NAMES[:2], fail_after=1), {}).cards
    assert first.free_bytes is not None
    assert second.free_bytes is None
    assert second.missing["memory"] == "GPU is lost"
    assert second.uncorrected_ecc_errors is None
    assert second.missing["ECC errors"] == "Not Supported"


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, ["GPU-0000", "MIG-10", "MIG-11"]),
        ("MIG-11", ["MIG-11"]),
        ("1,0", ["MIG-10", "GPU-0000"]),
        ("MIG-19,0", []),
    ],
)
def test_a_card_that_is_cut_up_is_its_mig_devices(visible, uuids):
    library = StandInNvml(*NAMES[:2])
    library.cut(1, 2)
    cards = read_driver(library, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}).cards
    assert [card.uuid for card in cards] == uuids
    assert all((card.name == "NVIDIA B MIG") == card.uuid.startswith("MIG") for card in cards)


def test_a_lost_card_hides_no_other():
    library = StandInNvml(*NAMES)
    by_index = library.nvmlDeviceGetHandleByIndex
    library.nvmlDeviceGetHandleByIndex = lambda index: by_index(index if index != 1 else lost(library))
    reading = read_driver(library, {})
    assert [card.name for card in reading.cards] == ["NVIDIA A", "NVIDIA C"]
    assert reading.missing["card 1"] == "GPU is lost"


def lost(library: StandInNvml) -> int:
    raise library.NVMLError("GPU is lost")
