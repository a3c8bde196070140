"""Values go from a file to where they stand in pieces that share a few buffers, each used again once it is free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stand_in_card import CARD, StandInCard

from liveavatar_core.errors import CheckpointError
from liveavatar_core.weights import reading
from liveavatar_core.weights.files import SafetensorsSource
from liveavatar_core.weights.reading import READERS, FileExtent, one_reader, read_extent

PIECE, PIECES = 4096, 3 * READERS + 1
VALUES = torch.arange(PIECE // 2 * PIECES - 7).to(torch.bfloat16)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SafetensorsSource:
    """A weight that takes PIECES pieces, behind another one."""
    monkeypatch.setattr(reading, "PIECE_BYTES", PIECE)
    save_file({"a": torch.ones(5), "w": VALUES}, tmp_path / "w.safetensors")
    return SafetensorsSource([tmp_path / "w.safetensors"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("first", "count"), [(0, len(VALUES)), (PIECE, 3 * PIECE), (len(VALUES) - 1, 1), (9, 0)])
def test_any_stretch_arrives_in_the_type_that_is_asked_for(source, dtype, first, count):
    out = torch.full((count,), -1, dtype=dtype)
    with one_reader() as reader:
        source.copy_to("w", first, out)
    assert torch.equal(out, VALUES[first : first + count].to(dtype))
    assert reader.read_bytes == 2 * count


class Event:
    """The moment when a copy to the card is done."""

    def __init__(self, waited: list[Event]) -> None:
        self._waited = waited

    def synchronize(self) -> None:
        self._waited.append(self)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_card_gets_pinned_pieces_and_a_buffer_waits_for_its_copy(source, monkeypatch, dtype):
    recorded: list[Event] = []
    waited: list[Event] = []

    class Stream:
        def record_event(self) -> Event:
            recorded.append(Event(waited))
            return recorded[-1]

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    with StandInCard() as card:
        out = torch.empty(len(VALUES), dtype=dtype, device=CARD)
        source.copy_to("w", 0, out)
        assert torch.equal(out.cpu(), VALUES.to(dtype))
        assert len(card.pinned) == READERS
    assert len(recorded) == PIECES
    assert set(waited) == {*recorded[: PIECES - READERS], recorded[-1]}


def test_a_file_that_ends_too_early_is_named(tmp_path):
    (tmp_path / "short").write_bytes(bytes(10))
    extent = FileExtent(path=tmp_path / "short", first_byte=4, dtype=torch.float32, name="w")
    with pytest.raises(CheckpointError, match="short ends before w does"):
        read_extent(extent, 0, torch.empty(2))
