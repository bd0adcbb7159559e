"""Folders from outside: which links are taken, what is refused before anything is copied."""

import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from toy_archives import files_below
from trees import write_images
from typer.testing import CliRunner

from fuzzyclip.cli import app
from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.fetching.fetch import compute_tree_sha256, fetch_dataset
from fuzzyclip.datasets.indexing import build_index
from fuzzyclip.utils.tree import DatasetError, copy_tree, read_tree

FOLDER = get_dataset("folder")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A person's folder of good and bad images."""
    write_images(tmp_path / "mine/good", ["0.png", "1.png"])
    write_images(tmp_path / "mine/scratch", ["0.png"], 5)
    return tmp_path / "mine"


def fetch(folder: Path) -> dict[str, object]:
    """What `download` and `data prepare` do with it."""
    (entry,) = fetch_dataset(FOLDER, folder.parent / "raw/mine", path=folder)["archives"]
    return dict(entry)


def check(folder: Path) -> list[str]:
    """What `data check` does, and the pipeline's index with the copy."""
    index = build_index(FOLDER, folder, protocol="auto", expect_counts=False)
    return list(index.frame["image_path"])


def link(target: str) -> Callable[[Path], None]:
    return lambda place: place.symlink_to(target)


def bind(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, chdir(place.parent):  # long names are refused
        server.bind(place.name)


@pytest.mark.parametrize(
    ("make", "said"),
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
def test_what_is_no_file_is_refused_before_anything_is_copied(
    mine: Path, make: Callable[[Path], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine.parent / "secret.txt").write_text("not to be shared")
    make(mine / "good/odd.png")
    monkeypatch.setattr(shutil, "copyfile", lambda *_: pytest.fail("copied"))
    for use in (fetch, check):
        with pytest.raises(DatasetError) as caught:
            use(mine)
        assert f"{mine / 'good/odd.png'}: " in str(caught.value)
        assert said in str(caught.value)
    assert not list(mine.parent.glob("raw/*"))


def test_all_faults_are_named_at_once(mine: Path) -> None:
    os.mkfifo(mine / "pipe")
    (mine / "etc").symlink_to("/etc")
    (mine / os.fsdecode(b"\xff")).mkdir()
    with pytest.raises(DatasetError) as caught:
        read_tree(mine)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{mine}: 3 problem(s); only regular files and folders are taken"
    assert any("\\xff" in line and "no UTF-8" in line for line in lines)


def test_the_commands_refuse_the_same(mine: Path) -> None:
    (mine / "good/zero.png").symlink_to("/dev/zero")
    out = mine.parent / "out"
    for arguments in (
        ["prepare", "folder", "--path", str(mine), "--out", str(out)],
        ["check", "folder", str(mine)],
    ):
        found = CliRunner().invoke(app, ["data", *arguments])
        assert found.exit_code == 1
        assert "good/zero.png: a link to a pipe, socket or device" in found.output
    assert not out.exists()


def test_a_link_to_a_file_of_the_same_folder_is_that_file(mine: Path) -> None:
    (mine / "good/again.png").symlink_to("../scratch/0.png")
    (mine / "scratch/chain.png").symlink_to(mine / "good/again.png")
    entry = fetch(mine)
    copied = mine.parent / "raw/mine"
    assert not [path for path in copied.rglob("*") if path.is_symlink()]
    assert files_below(copied) == files_below(mine)
    assert entry["size"] == sum(len(content) for content in files_below(copied).values())
    assert check(mine) == check(copied)
    assert "good/again.png" in check(mine)


def test_links_into_a_cache_of_dvc_are_its_files(mine: Path) -> None:
    """What `cache.type symlink` makes of an output."""
    before, names = fetch(mine), check(mine)
    for path in mine.rglob("*.png"):
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        kept = mine.parent / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.rename(kept)
        kept.chmod(0o444)
        path.symlink_to(kept)
    assert check(mine) == names
    assert fetch(mine) == before
    copy = mine.parent / "raw/mine/good/0.png"
    assert not copy.is_symlink()
    assert copy.stat().st_mode & 0o200  # the cache's are read-only
    elsewhere = mine.parent / "files/md5/secret.png"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.touch()
    (mine / "good/2.png").symlink_to(elsewhere)
    with pytest.raises(DatasetError, match="lies outside of the folder"):
        check(mine)


def test_a_folder_behind_a_link_is_a_folder(mine: Path) -> None:
    (mine.parent / "current").symlink_to(mine)
    assert fetch(mine.parent / "current") == fetch(mine) | {"file": "current"}
    assert check(mine.parent / "current") == check(mine)


def test_what_the_disk_can_not_hold_is_not_begun(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(path.stat().st_size for path in mine.rglob("*.png"))
    free = SimpleNamespace(free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    fetch(mine)
    free.free = size - 1
    with pytest.raises(DatasetError, match=rf"{size:,} bytes to copy, but {size - 1:,} are free"):
        fetch(mine)
    assert [path.name for path in (mine.parent / "raw").iterdir()] == ["mine"]


def test_a_folder_is_not_copied_into_itself(mine: Path) -> None:
    for out in (mine / "raw/mine", mine / "prepared"):
        with pytest.raises(DatasetError, match="would be copied into itself"):
            fetch_dataset(FOLDER, out, path=mine)
    shutil.copytree(mine, mine.parent / "raw/mine")
    fetch_dataset(FOLDER, mine.parent / "raw/mine", path=mine.parent / "raw/mine")  # in its place


def test_a_folder_that_can_not_be_read_is_named(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "scratch":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=r"scratch: the folder can not be read \(Permission"):
        read_tree(mine)


NAMES = st.text(st.sampled_from("ab ü.0"), min_size=1, max_size=4).filter(
    lambda name: name.strip(".")
)


@try_examples(20)
@given(places=st.lists(st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=6))
def test_the_digest_is_of_what_is_copied_and_of_sha256sum(
    places: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for number, parts in enumerate(places):
        path = root / "from" / Path(*parts)
        if not path.exists() and all(one.is_dir() for one in path.parents if one.exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(number))
    (root / "from/link").symlink_to(Path(*places[0]))
    (root / "from/.hidden").mkdir()
    tree = read_tree(root / "from")
    copy_tree(tree, root / "to")
    assert files_below(root / "to") == files_below(root / "from")
    assert sorted(files_below(root / "to")) == sorted(tree.files)
    assert (root / "to/.hidden").is_dir()
    assert compute_tree_sha256(read_tree(root / "to")) == compute_tree_sha256(tree)
    names = [f"{name}\0" for name in tree.files]
    lines = subprocess.run(
        ["xargs", "-0", "sha256sum"], input="".join(names), cwd=root / "to",
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert hashlib.sha256(lines.encode()).hexdigest() == compute_tree_sha256(tree)
