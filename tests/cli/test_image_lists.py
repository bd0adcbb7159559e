"""Files, folders and patterns to image files: which, in what order, and what is refused."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples

from fuzzyclip.cli.image_lists import list_images
from fuzzyclip.images.names import RESULTS
from fuzzyclip.model.outputs import LINES, SETTINGS

TREE = (
    "b.png", "a.JPG", "c.webp", "notes.txt", "gray.tga", ".hidden.png", "__MACOSX/b.png",
    "in/1.bmp", "in/0.tiff", "in/deep/2.png", "in/.cache/3.png", "part[1].png", "part1.png",
)  # fmt: skip
ALL = ["a.JPG", "b.png", "c.webp", "in/0.tiff", "in/1.bmp", "in/deep/2.png"]
ALL += ["part1.png", "part[1].png"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files by name only: nothing is opened."""
    folder = tmp_path / "tree"
    for name in TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    monkeypatch.chdir(folder)
    return folder


def names(*paths: str | Path) -> list[str]:
    return [path.as_posix() for path in list_images(paths)]


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        ([], []),
        (["."], ALL),
        (["in"], ["in/0.tiff", "in/1.bmp", "in/deep/2.png"]),
        (["b.png", "a.JPG"], ["b.png", "a.JPG"]),
        (["notes.txt", ".hidden.png"], ["notes.txt", ".hidden.png"]),
        (["b.png", ".", "./b.png", "in/../a.JPG"], ["b.png", *(n for n in ALL if n != "b.png")]),
        (["part[1].png"], ["part[1].png"]),
        (["part[0-9].png"], ["part1.png"]),
        (["*.png"], ["b.png", "part1.png", "part[1].png"]),
        (["*.tga"], ["gray.tga"]),
        (["*.*"], [name for name in ALL if "/" not in name]),
        (["?*"], ALL),
        (["**/*.png"], ["b.png", "in/deep/2.png", "part1.png", "part[1].png"]),
        (["in/*"], ["in/0.tiff", "in/1.bmp", "in/deep/2.png"]),
    ],
)
def test_a_name_stands_for_these_images(given_names: list[str], expected: list[str]) -> None:
    assert names(*given_names) == expected


@try_examples(50)
@given(st.lists(st.sampled_from([*TREE, "in", "in/deep", "."]), max_size=8))
def test_order_of_names_is_kept_and_nothing_comes_twice(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[str]
) -> None:
    root = tmp_path_factory.mktemp("chosen")
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    alone = [path.resolve() for name in chosen for path in list_images([root / name])]
    together = [path.resolve() for path in list_images([root / name for name in chosen])]
    assert together == list(dict.fromkeys(alone))


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("name", ["absent.png", "absent/*.png", "*.xyz", "__MACOSX/*", "empty"])
def test_a_name_without_images_is_refused_by_name(name: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        list_images(["b.png", name])
    assert str(caught.value).startswith(f"{name}: no ")


@pytest.mark.usefixtures("tree")
def test_the_home_folder_may_be_written_short(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree))
    expected = [str(tree / "in" / name) for name in ("0.tiff", "1.bmp", "deep/2.png")]
    assert names("~/in") == expected
    assert names("~/*.webp") == [str(tree / "c.webp")]


def test_results_are_not_inspected(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a run's own, nor those of an earlier one, which is said."""
    assert {LINES, SETTINGS} == RESULTS
    (tree / "found/in").mkdir(parents=True)
    for name in ("found/b.overlay.png", "found/in/0.overlay.png"):
        (tree / name).touch()
    (tree / "here").symlink_to("found")
    for out in (tree / "found", tree / "here"):
        for given_name in (".", "**/*.*"):
            assert sorted(map(str, list_images([given_name], without=out))) == ALL
    assert list_images(["found/b.overlay.png"], without=tree / "found")  # whoever names it wants it
    with pytest.raises(FileNotFoundError, match=r"lie in found, where results go"):
        list_images(["found"], without=Path("found"))
    (tree / "here").unlink()
    assert "found/b.overlay.png" in names(".")
    for name in RESULTS:
        (tree / "found" / name).touch()
    assert names(".") == ALL
    assert "found: results of fuzzyclip predict, not inspected" in caplog.messages
    assert names("found") == ["found/b.overlay.png", "found/in/0.overlay.png"]
    caplog.clear()
    for pattern, expected in (
        ("*", ALL),
        ("**/*.png", [name for name in ALL if name.endswith(".png")]),
        (str(tree / "**/*.*"), [str(tree / name) for name in ALL]),
        ("found/*.png", ["found/b.overlay.png"]),
        ("found/in/*", ["found/in/0.overlay.png"]),
        ("found/**/*.png", ["found/b.overlay.png", "found/in/0.overlay.png"]),
    ):
        assert sorted(names(pattern)) == sorted(expected)
    told = [
        f"{place}: results of fuzzyclip predict, not inspected"
        for place in ("found", "found", tree / "found")
    ]
    assert [message for message in caplog.messages if "results of" in message] == told
    with pytest.raises(FileNotFoundError, match="no images there"):
        names("f*/*.png")
    (tree / "circle").symlink_to("circle")
    assert names(".") == ALL


def test_links_are_followed_and_end(tree: Path, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "x.png").touch()
    (tree / "link").symlink_to(elsewhere)
    (tree / "in/up").symlink_to(tree)  # a circle
    assert names(".") == sorted([*ALL, "link/x.png"])
    (tree / "gone.png").symlink_to(tmp_path / "gone")  # listed, so that its error is seen
    assert "gone.png" in names(".")
    for twin in ("twin0.png", "twin1.png"):  # as DVC links equal files to one in its cache
        (tree / twin).symlink_to(elsewhere / "x.png")
    assert {"twin0.png", "twin1.png"} <= set(names("."))


def test_what_is_passed_over_is_said_in_one_line(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("in/clip.mp4", "noext", "in/Thumbs.db", "@eaDir/b.png/THUMB_M.jpg"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (tree / "old").symlink_to("nowhere")
    others = (
        "4 files are no images by their suffixes, not inspected: gray.tga, clip.mp4, noext, ..."
    )
    link = "1 link leads nowhere, not inspected: old"
    assert names(".") == ALL
    assert caplog.messages == [f".: {others}", f".: {link}"]
    caplog.clear()
    assert names("*") == ALL
    assert caplog.messages == [
        "in: 1 file is no image by its suffix, not inspected: clip.mp4",
        "*: 3 files are no images by their suffixes, not inspected: gray.tga, noext, notes.txt",
        f"*: {link}",
    ]
    caplog.clear()
    assert names("*.png") == [name for name in ALL if name.endswith(".png") and "/" not in name]
    assert not caplog.messages


@pytest.mark.parametrize(
    "folder", ["@eaDir", "@EADIR", ".thumbnails", "__MACOSX", ".AppleDouble", "lost+found"]
)
def test_what_systems_leave_is_no_image(tree: Path, folder: str) -> None:
    (tree / "in" / folder / "0.png").mkdir(parents=True)
    for name in (f"in/{folder}/1.png", f"in/{folder}/0.png/2.jpg"):
        (tree / name).touch()
    assert names(".") == ALL
    assert names("**/*.*") == ALL


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "gif", "pgm", "ppm", "pnm", "pbm"])
def test_every_suffix_of_a_format_that_is_read_is_searched_for(tree: Path, suffix: str) -> None:
    (tree / f"in/x.{suffix}").touch()
    assert f"in/x.{suffix}" in names("in")


@pytest.mark.usefixtures("tree")
def test_a_folder_that_can_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match=r"^in/deep: the folder can not be read \(Permission denied"):
        list_images(["in"])
