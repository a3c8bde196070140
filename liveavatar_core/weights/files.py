"""Weights in files, read piece by piece: safetensors (one file or shards) and torch's .pth."""

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


class SafetensorsSource:
    """Weights of one or several safetensors files. Only headers are read until `read` is called."""

    def __init__(self, files: Collection[Path]) -> None:
        """Raises CheckpointError naming a file that is missing, truncated or not safetensors."""
        self._opened = {path: _open_safetensors(path) for path in files}
        self._file_of = {name: path for path, opened in self._opened.items() for name in opened.keys()}  # noqa: SIM118
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
                    _FETCH_AGAIN,
                )
        return source

    def names(self) -> Collection[str]:
        """Every weight that there is."""
        return self._file_of.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight, from the header."""
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """The type that it is stored in."""
        return _DTYPES[self._slice(name).get_dtype()]

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """The values of a weight, or those of `rows` of the first dimension. CheckpointError if one is not finite."""
        held = self._slice(name)
        tensor = held[rows] if rows is not None else self._opened[self._file_of[name]].get_tensor(name)
        return require_finite(tensor, self._file_of[name], name)

    def _slice(self, name: str) -> Any:
        return self._opened[self._file_of[name]].get_slice(name)


class TorchFileSource:
    """Weights of a .pth or .bin file: unpickled as plain data only, mapped into memory rather than read."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError naming a file that is missing, truncated or no plain state dict."""
        self._path = path
        self._tensors = _load_state_dict(path)

    def names(self) -> Collection[str]:
        """Every weight that there is."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a weight."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """The type that it is stored in."""
        return self._tensors[name].dtype

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """The values of a weight, or those of `rows` of the first dimension. CheckpointError if one is not finite."""
        tensor = self._tensors[name]
        return require_finite(tensor if rows is None else tensor[rows], self._path, name)


def open_weights_file(path: Path) -> SafetensorsSource | TorchFileSource:
    """The source for a file, by its suffix."""
    return SafetensorsSource([path]) if path.suffix == ".safetensors" else TorchFileSource(path)


def require_finite(tensor: Tensor, path: Path, name: str) -> Tensor:
    """`tensor`, once it is known to hold neither NaN nor infinity. Takes no memory beside it."""
    if tensor.is_floating_point() and tensor.numel():
        extremes = torch.stack(tensor.aminmax()).float() if tensor.itemsize > 1 else tensor.float().aminmax()
        if not all(math.isfinite(value) for value in extremes):
            raise CheckpointError(f"{path}: {name} holds values that are not finite (NaN or infinity)", _FETCH_AGAIN)
    return tensor


_FETCH_AGAIN = "fetch this file again and compare its SHA-256: python -m liveavatar_core inspect --ckpt_dir DIR"


def _open_safetensors(path: Path) -> Any:
    _require_file(path)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or truncated: {error}", _FETCH_AGAIN) from error


def _read_weight_map(index: Path) -> Mapping[str, str]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        shards = {str(name): str(shard) for name, shard in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is no index of shards: {error!r}", _FETCH_AGAIN) from error
    for name, shard in shards.items():
        _require_text(name, index)
        if not shard.isprintable() or shard in ("", ".", "..") or Path(shard).name != shard:
            raise CheckpointError(f"{index} names {shard!r}, which is no file beside it", _FETCH_AGAIN)
    return shards


def _require_text(name: str, path: Path) -> None:
    """Names of weights reach terminals and files: one that could move a cursor is no name."""
    if not name.isprintable():
        raise CheckpointError(f"{path} holds a weight named {name!r}, which is no text", _FETCH_AGAIN)


def _load_state_dict(path: Path) -> dict[str, Tensor]:
    _require_file(path)
    try:  # files older than torch 1.6 are no zip archives, and cannot be mapped
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a broken archive fails in whatever its bytes happen to mean
        raise CheckpointError(f"{path} is damaged, truncated or no plain state dict: {error}", _FETCH_AGAIN) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path} is no plain state dict of tensors", _FETCH_AGAIN)
    for name in loaded:
        _require_text(str(name), path)
    return loaded


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", _FETCH_AGAIN)
