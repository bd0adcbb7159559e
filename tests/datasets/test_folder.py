"""Images of one's own: layouts found, masks optional, names of categories, links."""

import hashlib
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy_archives import files_below
from trees import MASK, index_tree, write_images, write_picture
from typer.testing import CliRunner

from fuzzyclip.cli import app
from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.base.spec import SplitCounts
from fuzzyclip.datasets.fetching.fetch import fetch_dataset
from fuzzyclip.datasets.indexing import count_images
from fuzzyclip.images.index_file import Index
from fuzzyclip.utils.tree import DatasetError

FOLDER = get_dataset("folder")


def index(root: Path, **options: Any) -> Index:
    return index_tree(root, FOLDER, **options)


def make_category(top: Path, normal: str = "good") -> None:
    """Plain folders: two normal images and two anomalous ones."""
    write_images(top / normal, ["a.jpg", "b.JPG"], 1)
    write_images(top / "scratch", ["a.png"], 5)
    write_images(top / "no thread", ["ü 1.png"], 7)


@pytest.mark.parametrize("normal", ["good", "ok", "normal"])
def test_plain_folders_of_one_category(tmp_path: Path, normal: str) -> None:
    make_category(tmp_path / "bolts", normal)
    frame = index(tmp_path / "bolts").frame
    assert count_images(frame) == {"bolts": SplitCounts(0, 2, 2)}
    assert sorted(frame["defect"]) == ["good", "good", "no thread", "scratch"]
    assert set(frame["mask_path"]) == {""}
    named = index(tmp_path / "bolts", categories=["hex bolt"])
    assert named.info["categories"] == {"hex bolt": "hex bolt"}


def test_plain_folders_of_several_categories(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "not laid out").mkdir()
    for name in ("bolts", "nuts"):
        make_category(tmp_path / name)
    with caplog.at_level("INFO"):
        assert set(count_images(index(tmp_path).frame)) == {"bolts", "nuts"}
    assert "is laid out as good_bad: bolts, nuts" in caplog.text
    assert set(count_images(index(tmp_path, categories=["nuts"]).frame)) == {"nuts"}
    with pytest.raises(DatasetError, match="washers: category folder is missing"):
        index(tmp_path, categories=["nuts", "washers"])


def test_masks_are_all_or_none_of_a_category(tmp_path: Path) -> None:
    for name in ("bolts", "nuts"):
        make_category(tmp_path / name)
    write_picture(tmp_path / "bolts/ground_truth/scratch/a_mask.png", MASK)
    with pytest.raises(DatasetError) as error:
        index(tmp_path)
    assert "bolts/no thread/ü 1.png: anomalous image has no mask" in str(error.value)
    assert "nuts" not in str(error.value).split("\n", 1)[1]
    write_picture(tmp_path / "bolts/ground_truth/no thread/ü 1.png", MASK)
    frame = index(tmp_path).frame
    masked = frame[frame["label"] == 1].groupby("category")["mask_path"].agg(list)
    assert masked.to_dict() == {
        "bolts": ["bolts/ground_truth/no thread/ü 1.png", "bolts/ground_truth/scratch/a_mask.png"],
        "nuts": ["", ""],
    }


@pytest.mark.parametrize("wrapped", ["", "export/2024"])
def test_mvtec_layout(tmp_path: Path, wrapped: str) -> None:
    top = tmp_path / wrapped / "bolt"
    write_images(top / "train/good", ["0.png"])
    write_images(top / "test/good", ["0.png"], 1)
    write_images(top / "test/dent", ["0.png"], 2)
    write_picture(top / "ground_truth/dent/0_mask.png", MASK)
    frame = index(tmp_path).frame
    assert count_images(frame) == {"bolt": SplitCounts(1, 1, 1)}
    assert frame["mask_path"].iloc[0].endswith("bolt/ground_truth/dent/0_mask.png")
    with pytest.raises(DatasetError, match="no images in a layout that is known"):
        index(tmp_path, protocol="good_bad")
    # the only category, without its folder
    assert count_images(index(top).frame) == {"bolt": SplitCounts(1, 1, 1)}


def test_a_layout_that_is_not_known_is_told_with_what_is_there(tmp_path: Path) -> None:
    write_images(tmp_path / "line 1/cam", [f"{number}.png" for number in range(4)])
    (tmp_path / "line 1/read me.txt").write_text("?")
    words = r"4 of 5 files are images \(line 1/cam/0\.png, line 1/cam/1\.png, \.\.\.\); move them"
    with pytest.raises(DatasetError, match=words):
        index(tmp_path)
    with pytest.raises(DatasetError, match=r"0 of 0 files are images; .*docs/datasets\.md"):
        index(tmp_path / "nothing")


def test_what_cannot_be_evaluated_is_said(tmp_path: Path) -> None:
    write_images(tmp_path / "only/good", ["0.png"])
    with pytest.raises(DatasetError, match="no normal or no anomalous test image"):
        index(tmp_path / "only")
    with pytest.raises(DatasetError, match=r"good may be called good, ok, normal"):
        index(tmp_path / "only/good")
    write_images(tmp_path / "only/bad", ["0.png"], 3)
    with pytest.raises(DatasetError, match=r"give --subset \(in params\.yaml: counts: any\)"):
        index(tmp_path / "only", expect_counts=True)


@pytest.mark.parametrize("packed", [False, True])
def test_from_folder_or_archive_to_index(tmp_path: Path, packed: bool) -> None:
    make_category(tmp_path / "mine/bolts")
    source = tmp_path / "mine"
    if packed:
        with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
            for path in sorted(source.rglob("*.*")):
                archive.write(path, path.relative_to(tmp_path))
        source = tmp_path / "mine.zip"
    record = fetch_dataset(FOLDER, tmp_path / "raw/parts", path=source)
    assert record["archives"][0]["verified"] is False
    counts = count_images(index(tmp_path / "raw/parts").frame)
    assert counts == {"bolts": SplitCounts(0, 2, 2)}
    with pytest.raises(DatasetError, match="Give the folder"):
        fetch_dataset(FOLDER, tmp_path / "raw/parts")


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ""])
def test_a_given_category_is_the_name_of_a_folder(tmp_path: Path, name: str) -> None:
    make_category(tmp_path / "bolts")
    with pytest.raises(DatasetError, match=r"category '.*' is no name of a folder"):
        index(tmp_path / "bolts", categories=[name])


# --- links, and what is not copied


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A person's folder of normal and anomalous images."""
    write_images(tmp_path / "mine/good", ["0.png", "1.png"])
    write_images(tmp_path / "mine/scratch", ["0.png"], 5)
    return tmp_path / "mine"


def fetch(folder: Path) -> dict[str, Any]:
    """What `download` and `data prepare` do with it."""
    (entry,) = fetch_dataset(FOLDER, folder.parent / "raw/mine", path=folder)["archives"]
    return dict(entry)


def check(folder: Path) -> list[str]:
    """What `data check` does, and the pipeline's index with the copy."""
    return list(index(folder).frame["image_path"])


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/dev/zero", "a link to a pipe, socket or device"),
        ("../../secret.txt", "secret.txt, which lies outside of the folder"),
        ("/etc", "a link to a folder"),
    ],
)
def test_the_commands_refuse_links_out_of_the_folder_and_copy_nothing(
    mine: Path, monkeypatch: pytest.MonkeyPatch, target: str, reason: str
) -> None:
    (mine.parent / "secret.txt").write_text("not to be shared")
    (mine / "good/odd.png").symlink_to(target)
    monkeypatch.setattr(shutil, "copyfile", lambda *_: pytest.fail("copied"))
    out = mine.parent / "out"
    for arguments in (
        ["prepare", "folder", "--path", str(mine), "--out", str(out)],
        ["check", "folder", str(mine)],
    ):
        result = CliRunner().invoke(app, ["data", *arguments])
        assert result.exit_code == 1
        assert "good/odd.png: a link to " in result.output
        assert reason in result.output
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
