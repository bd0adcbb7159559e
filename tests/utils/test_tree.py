"""Folders from outside: which links are taken, and what is refused."""

import os
import socket
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from unittest.mock import Mock

import pytest

from fuzzyclip.utils.tree import DatasetError, read_tree


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A person's folder, beside what is not to be shared."""
    for name in ("secret.txt", "mine/good/0.png", "mine/scratch/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path / "mine"


def link(target: str) -> Callable[[Path], None]:
    return lambda place: place.symlink_to(target)


def bind(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, chdir(place.parent):  # long names are refused
        server.bind(place.name)


def test_a_name_with_a_line_end_makes_no_line_of_its_own(mine: Path) -> None:
    (mine / "a\nb").symlink_to("nowhere")
    with pytest.raises(DatasetError, match=r"a\\nb: a link that leads nowhere") as error:
        read_tree(mine)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (link("/dev/zero"), "a link to a pipe, socket or device; remove it"),
        (link("."), "a link to a folder; put the folder itself in its place"),
        (link("../scratch"), "a link to a folder; put the folder itself in its place"),
        (link("/etc"), "a link to a folder; put the folder itself in its place"),
        (link("../../secret.txt"), "secret.txt, which lies outside of the folder; put the file"),
        (link("nowhere"), "a link that leads nowhere (No such file or directory); remove it"),
        (link("odd.png"), "a link that leads nowhere (Too many levels of symbolic links)"),
        (os.mkfifo, "a pipe, socket or device; remove it"),
        (bind, "a pipe, socket or device; remove it"),
    ],
    ids=[
        "device", "own folder", "folder inside", "folder outside", "file outside",
        "dangling", "loop", "pipe", "socket",
    ],
)  # fmt: skip
def test_what_is_no_file_is_refused_by_name(
    mine: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(mine / "good/odd.png")
    with pytest.raises(DatasetError) as caught:
        read_tree(mine)
    assert f"{mine / 'good/odd.png'}: " in str(caught.value)
    assert reason in str(caught.value)


def test_all_faults_are_named_at_once(mine: Path) -> None:
    os.mkfifo(mine / "pipe")
    (mine / "etc").symlink_to("/etc")
    (mine / os.fsdecode(b"\xff")).mkdir()
    with pytest.raises(DatasetError) as caught:
        read_tree(mine)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{mine}: 3 problem(s); only regular files and folders are taken"
    assert any("\\udcff" in line and "no UTF-8" in line for line in lines)


def test_a_folder_that_can_not_be_read_is_named(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = PermissionError(13, "Permission denied", str(mine))
    monkeypatch.setattr(os, "scandir", Mock(side_effect=error))
    with pytest.raises(DatasetError, match=r"mine: the folder can not be read \(Permission"):
        read_tree(mine)
