"""Where the folders that ship beside the code are: at the top of a clone, inside the package where it is installed."""

from __future__ import annotations

from pathlib import Path


def shipped_folder(package: Path, name: str) -> Path:
    """Folder `name` of the package that lies in `package`."""
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


ASSETS = shipped_folder(Path(__file__).parent, "assets")
"""Portraits, a voice and the tiny avatar."""
