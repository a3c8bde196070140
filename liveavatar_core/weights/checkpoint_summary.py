"""What a checkpoint folder holds, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from liveavatar_core.config import ModelParams
from liveavatar_core.errors import CheckpointError
from liveavatar_core.weights import layout
from liveavatar_core.weights.checkpoint import expected_shapes, open_component
from liveavatar_core.weights.names import COMPONENTS, Component
from liveavatar_core.weights.source import WeightSource


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """One file."""

    path: str
    """Relative to the checkpoint folder."""
    size_bytes: int
    """Bytes of the file."""
    sha256: str | None
    """SHA-256 of the file; None if hashes were not asked for."""


@dataclass(frozen=True, kw_only=True)
class ComponentReport:
    """One component."""

    name: Component
    """The part of the model."""
    parameters: int = 0
    """Values in its weights."""
    dtypes: Mapping[str, int]
    """Weights of each type."""
    problems: tuple[str, ...] = ()
    """What is missing, unknown, of another shape or not finite; empty if it can be used."""


@dataclass(frozen=True, kw_only=True)
class CheckpointReport:
    """A checkpoint folder."""

    directory: Path
    """The folder."""
    model: ModelParams | None
    """Dimensions of the model; None if they could not be read."""
    components: tuple[ComponentReport, ...]
    """Every component, whether it is there or not."""
    files: tuple[FileReport, ...]
    """Every file, by path."""
    has_tokenizer: bool
    """Whether the tokenizer's folder is there."""
    problems: tuple[str, ...] = ()
    """What keeps the dimensions from being read."""

    @property
    def usable(self) -> bool:
        """Whether nothing is wrong."""
        return self.has_tokenizer and not self.problems and not any(part.problems for part in self.components)


def inspect_checkpoint(directory: Path, *, hashes: bool = True, values: bool = True) -> CheckpointReport:
    """Look through a checkpoint folder; problems are reported, not raised.

    `hashes`: SHA-256 of every file. `values`: read every weight, to find those that are not finite. Either
    reads the whole checkpoint, a few minutes for the published 49 GB. Raises CheckpointError only where
    there is no folder.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is no folder", "give --ckpt_dir the folder of Wan2.2-S2V-14B")
    model, problems = _try_params(directory)
    return CheckpointReport(
        directory=directory,
        model=model,
        components=tuple(_inspect_component(directory, name, model, values) for name in COMPONENTS),
        files=tuple(_inspect_file(directory, path, hashes) for path in _files_in(directory)),
        has_tokenizer=(directory / layout.TOKENIZER / "tokenizer_config.json").is_file(),
        problems=problems,
    )


def _try_params(directory: Path) -> tuple[ModelParams | None, tuple[str, ...]]:
    try:
        return layout.read_model_params(directory), ()
    except CheckpointError as error:
        return None, (error.what,)


def _inspect_component(
    directory: Path, component: Component, model: ModelParams | None, values: bool
) -> ComponentReport:
    try:
        source = open_component(directory, component)
    except CheckpointError as error:
        return ComponentReport(name=component, dtypes={}, problems=(error.what,))
    problems = _differences(source, component, model) if model else []
    return ComponentReport(
        name=component,
        parameters=sum(prod(source.shape(name)) for name in source.names()),
        dtypes=Counter(str(source.dtype(name)).removeprefix("torch.") for name in source.names()),
        problems=tuple(problems + (_not_finite(source) if values else [])),
    )


def _differences(source: WeightSource, component: Component, model: ModelParams) -> list[str]:
    expected, have = expected_shapes(component, model), set(source.names())
    missing = [f"{name} is missing" for name in sorted(expected.keys() - have)]
    unknown = [f"{name} is unknown" for name in sorted(have - expected.keys())]
    reshaped = [
        f"{name} is {list(source.shape(name))}; the model has {list(expected[name])}"
        for name in sorted(have & expected.keys())
        if tuple(source.shape(name)) != tuple(expected[name])
    ]
    return missing + unknown + reshaped


def _not_finite(source: WeightSource) -> list[str]:
    problems = []
    for name in source.names():
        try:
            source.read(name)
        except CheckpointError as error:
            problems.append(error.what)
    return problems


def _files_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _inspect_file(directory: Path, path: Path, hashes: bool) -> FileReport:
    return FileReport(
        path=str(path.relative_to(directory)),
        size_bytes=path.stat().st_size,
        sha256=_sha256(path) if hashes else None,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
