"""Weights in files, each read from where it lies: safetensors (one file or shards) and torch's .pth."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from liveavatar_core.errors import CheckpointError
from liveavatar_core.torch_private import checkpoint_places
from liveavatar_core.weights.reading import FETCH_AGAIN, FileExtent, read_extent, require_finite
from liveavatar_core.weights.source import WeightSource

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class FileSource(WeightSource):
    """Weights that lie in files."""

    def extent(self, name: str) -> FileExtent:
        """Where the values of a weight lie."""
        raise NotImplementedError

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """The values of a weight, or those of `rows` of the first dimension. CheckpointError if one is not finite."""
        shape = self.shape(name)
        start, stop, _ = (rows or slice(None)).indices(shape[0] if shape else 1)
        wanted = (max(stop - start, 0), *shape[1:]) if shape else ()
        values = torch.empty(wanted, dtype=self.dtype(name))
        self.copy_to(name, start * math.prod(shape[1:]), values)
        return values

    def copy_to(self, name: str, first: int, out: Tensor) -> None:
        """Read the values from number `first` on straight into `out`."""
        read_extent(self.extent(name), first, out)


class SafetensorsSource(FileSource):
    """Weights of one or several safetensors files. Only headers are read until values are asked for."""

    def __init__(self, files: Collection[Path]) -> None:
        """Raises CheckpointError naming a file that is missing, truncated or not safetensors."""
        headers = {path: _read_header(path) for path in files}
        self._file_of = {name: path for path, (_, entries) in headers.items() for name in entries}
        self._entries = {name: (begin, entry) for begin, each in headers.values() for name, entry in each.items()}
        for name, path in self._file_of.items():
            _require_text(name, path)

    @classmethod
    def from_index(cls, index: Path) -> SafetensorsSource:
        """The shards that an index file lists; each must hold the weights that the index says."""
        weight_map = _read_weight_map(index)
        source = cls(sorted({index.parent / shard for shard in weight_map.values()}))
        for name, shard in weight_map.items():
            if source._file_of.get(name) != index.parent / shard:
                raise CheckpointError(
                    f"{index.parent / shard} does not hold {name}, which {index.name} says it does",
                    FETCH_AGAIN,
                )
        return source

    def names(self) -> Collection[str]:
        """Every weight that there is."""
        return self._file_of.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight, from the header."""
        return tuple(self._entries[name][1]["shape"])

    def dtype(self, name: str) -> torch.dtype:
        """The type that it is stored in."""
        return _DTYPES[self._entries[name][1]["dtype"]]

    def extent(self, name: str) -> FileExtent:
        """Where the values of a weight lie."""
        begin, entry = self._entries[name]
        place = begin + entry["data_offsets"][0]
        return FileExtent(path=self._file_of[name], first_byte=place, dtype=self.dtype(name), name=name)


class TorchFileSource(FileSource):
    """Weights of a .pth or .bin file: unpickled as plain data only, and where it can be had read from their places."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError naming a file that is missing, truncated or no plain state dict."""
        self._path = path
        self._tensors = _load_state_dict(path)
        self._places = checkpoint_places(path) if zipfile.is_zipfile(path) else {}

    def names(self) -> Collection[str]:
        """Every weight that there is."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """The type that it is stored in."""
        return self._tensors[name].dtype

    def extent(self, name: str) -> FileExtent:
        """Where the values of a weight lie."""
        return FileExtent(path=self._path, first_byte=self._places[name], dtype=self.dtype(name), name=name)

    def copy_to(self, name: str, first: int, out: Tensor) -> None:
        """Read the values into `out`: from their place, or where they lie in another order from the mapped file."""
        if name in self._places:
            super().copy_to(name, first, out)
        else:
            values = self._tensors[name].reshape(-1)[first : first + out.numel()]
            out.view(-1).copy_(require_finite(values, self._path, name))


def open_weights_file(path: Path) -> SafetensorsSource | TorchFileSource:
    """The source for a file, by its suffix."""
    return SafetensorsSource([path]) if path.suffix == ".safetensors" else TorchFileSource(path)


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the values begin, and what the header says of each weight, once the library has found it sound."""
    _require_file(path)
    try:
        with safe_open(path, framework="pt"), path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(size))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or truncated: {error}", FETCH_AGAIN) from error
    entries.pop("__metadata__", None)
    return 8 + size, entries


def _read_weight_map(index: Path) -> Mapping[str, str]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        shards = {str(name): str(shard) for name, shard in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is no index of shards: {error!r}", FETCH_AGAIN) from error
    for name, shard in shards.items():
        _require_text(name, index)
        if not shard.isprintable() or shard in ("", ".", "..") or Path(shard).name != shard:
            raise CheckpointError(f"{index} names {shard!r}, which is no file beside it", FETCH_AGAIN)
    return shards


def _require_text(name: str, path: Path) -> None:
    """Names of weights reach terminals and files: one that could move a cursor is no name."""
    if not name.isprintable():
        raise CheckpointError(f"{path} holds a weight named {name!r}, which is no text", FETCH_AGAIN)


def _load_state_dict(path: Path) -> dict[str, Tensor]:
    _require_file(path)
    try:  # files older than torch 1.6 are no zip archives, and cannot be mapped
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a broken archive fails in whatever its bytes happen to mean
        raise CheckpointError(f"{path} is damaged, truncated or no plain state dict: {error}", FETCH_AGAIN) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path} is no plain state dict of tensors", FETCH_AGAIN)
    for name in loaded:
        _require_text(str(name), path)
    return loaded


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", FETCH_AGAIN)
