"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from liveavatar_core.errors import BadData
from liveavatar_core.outputs import not_a_file


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8); after a failure or a power cut it is the old file or the new, whole.

    Raises:
        BadData: the folder cannot be written, or `path` is a device, a folder or a socket.
    """
    temporary = None
    what = not_a_file(path)
    if what is not None:
        raise BadData(f"{path} is {what}, not a file", "choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except (OSError, UnicodeEncodeError) as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise BadData(f"{path} cannot be written: {error}", "choose a folder that can be written") from error
