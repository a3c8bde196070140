"""Which trained weights a run is given, by what is in their files. Free of torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from liveavatar_core.errors import BadInput

PIECES = 64
"""Pieces of a file that its digest is taken of: a whole checkpoint takes minutes to read, and every session would."""
PIECE_BYTES = 65536
KINDS = (".json", ".safetensors", ".pth", ".bin", ".model", ".txt")
"""Endings of files that a checkpoint is read from."""


class Digest(Protocol):
    """What hashlib's digests can do."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes into the digest."""


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """A checkpoint and a LoRA. Without files: seeded random values, which show no face."""

    digest: str = ""
    """Sixteen hex digits over names, sizes and pieces of all files; empty: seeded values."""
    ckpt_dir: str = field(default="", compare=False)
    """Folder of the checkpoint in its published layout; where it lies is no part of what is declared."""
    lora_path_dmd: str = field(default="", compare=False)
    """File of Live Avatar's LoRA."""

    @classmethod
    def of_files(cls, ckpt_dir: Path, lora_path_dmd: Path) -> WeightFiles:
        """The weights of a checkpoint with a LoRA.

        Raises:
            BadInput: there is no checkpoint, or no such file.
        """
        if not (ckpt_dir / "config.json").is_file():
            raise BadInput(f"--ckpt_dir {ckpt_dir} holds no config.json", "give the folder of Wan2.2-S2V-14B")
        if not lora_path_dmd.is_file():
            raise BadInput(f"--lora_path_dmd {lora_path_dmd}: there is no such file", "give Live Avatar's LoRA")
        digest = hashlib.sha256()
        files = sorted(path for path in ckpt_dir.rglob("*") if path.suffix in KINDS and path.is_file())
        for path in files:
            digest.update(f"{path.relative_to(ckpt_dir).as_posix()}\n".encode())
            _add(digest, path)
        _add(digest, lora_path_dmd)
        folder, lora = str(ckpt_dir.resolve()), str(lora_path_dmd.resolve())
        return cls(digest=digest.hexdigest()[:16], ckpt_dir=folder, lora_path_dmd=lora)


SEEDED = WeightFiles()
"""What runs take unless somebody gives files."""


def given_weights(ckpt_dir: str | None, lora_path_dmd: str | None) -> WeightFiles:
    """The weights that a person gave; seeded ones if none were. Raises BadInput where one of the two is missing."""
    if not ckpt_dir and not lora_path_dmd:
        return SEEDED
    if not ckpt_dir or not lora_path_dmd:
        missing, given = ("--lora_path_dmd", "--ckpt_dir") if ckpt_dir else ("--ckpt_dir", "--lora_path_dmd")
        raise BadInput(f"{given} is given without {missing}: every tier runs both together", f"give {missing} too")
    return WeightFiles.of_files(Path(ckpt_dir), Path(lora_path_dmd))


def _add(digest: Digest, path: Path) -> None:
    for piece in _pieces(path):
        digest.update(piece)


def _pieces(path: Path) -> Iterator[bytes]:
    """The size, and pieces from the first bytes to the last: a .pth ends with checksums of all that it holds."""
    size = path.stat().st_size
    yield f"{size}\n".encode()
    if size <= PIECES * PIECE_BYTES:
        yield path.read_bytes()
        return
    with path.open("rb") as file:
        for number in range(PIECES):
            file.seek(number * (size - PIECE_BYTES) // (PIECES - 1), os.SEEK_SET)
            yield file.read(PIECE_BYTES)
