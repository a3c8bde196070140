"""Values out of files, straight to where they stand: on the host read into the tensor itself, to a card in pieces.

A plain read of pieces by a few threads keeps a disk busy; mapped pages come one fault at a time, and stay counted as
memory of the process.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.errors import CheckpointError

PIECE_BYTES = 8 * 1024**2
"""Bytes read at a time: enough for a disk's full rate, little enough to stand twice."""
READERS = 4
"""Pieces on their way at a time; one alone leaves a fast disk waiting."""
FETCH_AGAIN = "fetch this file again and compare its SHA-256: python -m liveavatar_core inspect --ckpt_dir DIR"


@dataclass(frozen=True, kw_only=True)
class FileExtent:
    """Where the values of a weight lie in a file, one after the other."""

    path: Path
    """The file."""
    first_byte: int
    """The place of the first value."""
    dtype: torch.dtype
    """The type of the values."""
    name: str
    """The weight, for messages."""


@dataclass
class FileReader:
    """Reads extents of files, and counts what it reads."""

    read_bytes: int = 0
    """Bytes read from files."""
    read_seconds: float = 0.0
    """Seconds of waiting for them, copies to the card included."""
    _files: dict[Path, int] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(READERS))
    _pinned: list[Tensor] = field(default_factory=list)

    def read(self, extent: FileExtent, first: int, out: Tensor) -> None:
        """Copy the values from number `first` on into `out`, of any type and on any device, as many as it takes.

        Raises CheckpointError naming the file where it ends too early or a value is not finite.
        """
        started, size = time.monotonic(), out.numel() * extent.dtype.itemsize
        begin = extent.first_byte + first * extent.dtype.itemsize
        if out.device.type == "cpu" and out.dtype == extent.dtype and out.is_contiguous():
            self._read_in_place(extent, begin, _bytes_of(out))
        elif size:
            self._read_in_pieces(extent, begin, out)
        with scopes.place("host"):  # a few numbers
            require_finite(out, extent.path, extent.name)
        self.read_bytes += size
        self.read_seconds += time.monotonic() - started

    def close(self) -> None:
        """Close the files; give up threads and pinned memory."""
        self._threads.shutdown()
        for file in self._files.values():
            os.close(file)
        self._files.clear()
        self._pinned.clear()

    def _read_in_place(self, extent: FileExtent, begin: int, into: memoryview) -> None:
        file = self._file(extent.path)

        def read_piece(at: int) -> None:
            _read_all(file, begin + at, into[at : at + PIECE_BYTES], extent)

        if len(into) <= PIECE_BYTES:
            read_piece(0)
        else:
            list(self._threads.map(read_piece, range(0, len(into), PIECE_BYTES)))

    def _read_in_pieces(self, extent: FileExtent, begin: int, out: Tensor) -> None:
        """Through a ring of buffers: while one is on its way to the card, the others are being read."""
        file, flat, ring = self._file(extent.path), out.view(-1), self._ring(out)
        step, coming = PIECE_BYTES // extent.dtype.itemsize, deque[tuple[Future[None], Tensor, Tensor]]()
        arrived: list[torch.cuda.Event | None] = [None] * READERS
        for number in range(-(-flat.numel() // step)):
            piece, slot = flat[number * step : (number + 1) * step], number % READERS
            if len(coming) == READERS:
                arrived[slot] = _send(*coming.popleft())
            values = ring[slot].view(extent.dtype)[: piece.numel()]
            place = begin + number * step * extent.dtype.itemsize
            read = self._threads.submit(_read_after, arrived[slot], file, place, _bytes_of(values), extent)
            coming.append((read, values, piece))
        for each in coming:
            last = _send(*each)
        if last is not None:
            last.synchronize()  # the next weight takes the same buffers

    def _ring(self, out: Tensor) -> list[Tensor]:
        """Buffers that pieces come through, pinned for a card: `READERS` times PIECE_BYTES in all."""
        if not self._pinned:
            pin = out.device.type == "cuda"
            with scopes.place("host"):
                self._pinned = [torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=pin) for _ in range(READERS)]
        return self._pinned

    def _file(self, path: Path) -> int:
        if path not in self._files:
            try:
                self._files[path] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise CheckpointError(f"{path}: {error.strerror}", FETCH_AGAIN) from error
        return self._files[path]


_reader: ContextVar[FileReader | None] = ContextVar("reader", default=None)


@contextmanager
def one_reader() -> Iterator[FileReader]:
    """What is read while inside comes through one reader, which is closed afterwards; its counts stay."""
    reader = FileReader()
    token = _reader.set(reader)
    try:
        yield reader
    finally:
        _reader.reset(token)
        reader.close()


def read_extent(extent: FileExtent, first: int, out: Tensor) -> None:
    """`FileReader.read` by the reader of `one_reader`, or by one for this call alone."""
    reader = _reader.get()
    with nullcontext(reader) if reader else one_reader() as reading:
        reading.read(extent, first, out)


def require_finite(tensor: Tensor, path: Path, name: str) -> Tensor:
    """`tensor`, once it is known to hold neither NaN nor infinity. Takes no memory beside it."""
    if tensor.is_floating_point() and tensor.numel():
        extremes = torch.stack(tensor.aminmax()).float() if tensor.itemsize > 1 else tensor.float().aminmax()
        if not all(math.isfinite(value) for value in extremes):
            raise CheckpointError(f"{path}: {name} holds values that are not finite (NaN or infinity)", FETCH_AGAIN)
    return tensor


def _send(read: Future[None], values: Tensor, piece: Tensor) -> torch.cuda.Event | None:
    """Send a piece on once it is read; types change where it arrives. Returns what tells that its buffer is free."""
    read.result()
    if piece.device.type != "cuda":
        piece.copy_(values)
        return None
    arrived = values if values.dtype == piece.dtype else values.to(piece.device, non_blocking=True)
    piece.copy_(arrived, non_blocking=True)
    return torch.cuda.current_stream(piece.device).record_event()


def _read_after(free: torch.cuda.Event | None, file: int, place: int, into: memoryview, extent: FileExtent) -> None:
    if free is not None:
        free.synchronize()
    _read_all(file, place, into, extent)


def _read_all(file: int, place: int, into: memoryview, extent: FileExtent) -> None:
    done = 0
    while done < len(into):
        try:
            size = os.preadv(file, [into[done:]], place + done)
        except OSError as error:
            raise CheckpointError(f"{extent.path}: {extent.name}: {error.strerror}", FETCH_AGAIN) from error
        if not size:
            raise CheckpointError(f"{extent.path} ends before {extent.name} does", FETCH_AGAIN)
        done += size


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.view(-1).view(torch.uint8).numpy().data
