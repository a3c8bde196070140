"""Outputs are looked at before the work is done."""

from __future__ import annotations

import os
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest
from ordinary_user import folder_of_somebody_else

from liveavatar_core.cli.main import main
from liveavatar_core.errors import BadData, BadInput
from liveavatar_core.files import write_atomically
from liveavatar_core.outputs import check_output

GENERATE = ["generate", "--image", "gone.png", "--audio", "gone.wav", "--prompt", "p", "--save_file"]


def identity(path: Path) -> tuple[int, ...]:
    """What tells a path from its replacement: reading it, which moves the time of access, does not change this."""
    found = os.lstat(path)
    return found.st_mode, found.st_dev, found.st_ino, found.st_rdev, found.st_mtime_ns


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


MAKERS = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/full"),
    "a link to nothing": lambda path: path.symlink_to("gone"),
    "a socket": a_socket,
}


@pytest.mark.parametrize("what", MAKERS)
def test_what_is_no_file_is_refused_and_left_alone(tmp_path: Path, monkeypatch, what: str, capsys):
    monkeypatch.chdir(tmp_path)
    path = Path("out.mp4")
    MAKERS[what](path)
    before = identity(path)
    with pytest.raises(BadInput, match=f"--report-html out.mp4 names {what}, not a file"):
        check_output(path, "--report-html")
    if what != "a link to nothing":
        with pytest.raises(BadData, match=f"is {what}, not a file"):
            write_atomically(path, "text")
    assert main([*GENERATE, "out.mp4"]) == 2
    assert f"--save_file out.mp4 names {what}, not a file\nnext: " in capsys.readouterr().err
    assert identity(path) == before


def test_a_device_is_never_replaced():
    before = identity(Path("/dev/full"))
    with pytest.raises(BadInput, match="names a device"):
        check_output(Path("/dev/full"), "--report-html")
    with pytest.raises(BadData, match="is a device"):
        write_atomically(Path("/dev/full"), "page")
    assert identity(Path("/dev/full")) == before


def test_a_file_that_is_there_and_one_that_is_not_can_be_written(tmp_path: Path):
    (tmp_path / "there").write_text("old")
    check_output(tmp_path / "there", "--history")
    check_output(tmp_path / "new/folder/file", "--history")
    assert (tmp_path / "there").read_text() == "old"
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_way_of_a_folder(tmp_path: Path):
    (tmp_path / "a").write_text("")
    with pytest.raises(BadInput, match="a is not a folder"):
        check_output(tmp_path / "a/b/c.html", "--report-html")


def test_a_full_disk_is_noticed(tmp_path: Path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 1000))
    with pytest.raises(BadInput, match=r"0\.0 MiB are free there; 1\.0 MiB are the least"):
        check_output(tmp_path / "file", "--report-html")


def test_a_folder_of_somebody_else():
    with folder_of_somebody_else() as folder, pytest.raises(BadInput, match="cannot be written"):
        check_output(folder / "file", "--report-html")
