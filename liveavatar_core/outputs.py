"""Whether a file can be written, asked before the work is done that is to be written. Free of torch."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from liveavatar_core.errors import BadInput

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
"""What a name may stand for that is not a file."""
MIB = 1024**2


def check_output(path: Path, option: str, *, room_bytes: int = MIB) -> None:
    """Refuse a file that could not be written later. Nothing is written, and nothing is made.

    Args:
        path: the file, which may be there already; folders above it may have to be made.
        option: the option that named it, for the message.
        room_bytes: what the disk must have room for.

    Raises:
        BadInput: it names something other than a regular file, or is in no folder that can be written, or the disk is
            full.
    """
    what = not_a_file(path)
    if what is not None:
        raise BadInput(f"{option} {path} names {what}, not a file", f"give {option} the name of a file")
    folder = next(above for above in path.absolute().parents if os.path.lexists(above))
    if not folder.is_dir():
        raise BadInput(f"{option} {path}: {folder} is not a folder", f"give {option} another folder")
    if not may_write(folder) or (path.exists() and not may_write(path)):
        raise BadInput(f"{option} {path} cannot be written", f"give {option} a folder of your own")
    free = shutil.disk_usage(folder).free
    if free < room_bytes:
        raise BadInput(
            f"{option} {path}: {free / MIB:.1f} MiB are free there; {room_bytes / MIB:.1f} MiB are the least",
            "free space there, or give another folder",
        )


def may_write(path: Path) -> bool:
    """Whether this process, with the rights that it has now, may write a file or make files in a folder."""
    wanted = os.W_OK | os.X_OK if path.is_dir() else os.W_OK
    return os.access(path, wanted, effective_ids=os.access in os.supports_effective_ids)


def not_a_file(path: Path) -> str | None:
    """What `path` stands for, where that is there and no regular file; links are followed."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else None
    except NotADirectoryError:
        return None  # a file is in the way of a folder above it; that is another fault
    except OSError as error:
        return f"what cannot be looked at ({error.strerror})"
    return None if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "something else")
