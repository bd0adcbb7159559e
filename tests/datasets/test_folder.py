"""Images of one's own: layouts found, masks optional, names of categories."""

import zipfile
from pathlib import Path

import pytest
from trees import MASK, write_images, write_picture

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.base.spec import SplitCounts
from fuzzyclip.datasets.fetching.fetch import fetch_dataset
from fuzzyclip.datasets.indexing import build_index, count_images
from fuzzyclip.images.index_file import Index
from fuzzyclip.utils.tree import DatasetError

FOLDER = get_dataset("folder")


def index(root: Path, protocol: str = "auto", categories: list[str] | None = None) -> Index:
    return build_index(FOLDER, root, protocol=protocol, categories=categories, expect_counts=False)


def make_good_bad(top: Path, good: str = "good") -> None:
    write_images(top / good, ["a.jpg", "b.JPG"], 1)
    write_images(top / "scratch", ["a.png"], 5)
    write_images(top / "no thread", ["ü 1.png"], 7)


@pytest.mark.parametrize("good", ["good", "ok", "normal"])
def test_plain_folders_of_one_category(tmp_path: Path, good: str) -> None:
    make_good_bad(tmp_path / "bolts", good)
    found = index(tmp_path / "bolts")
    assert count_images(found.frame) == {"bolts": SplitCounts(0, 2, 2)}
    assert sorted(found.frame["defect"]) == ["good", "good", "no thread", "scratch"]
    assert set(found.frame["mask_path"]) == {""}
    assert index(tmp_path / "bolts", categories=["hex bolt"]).info["categories"] == {
        "hex bolt": "hex bolt"
    }


def test_plain_folders_of_several_categories(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("bolts", "nuts", "not laid out"):
        make_good_bad(tmp_path / name) if name != "not laid out" else (tmp_path / name).mkdir()
    with caplog.at_level("INFO"):
        assert set(count_images(index(tmp_path).frame)) == {"bolts", "nuts"}
    assert "is laid out as good_bad: bolts, nuts" in caplog.text
    assert set(count_images(index(tmp_path, categories=["nuts"]).frame)) == {"nuts"}
    with pytest.raises(DatasetError, match="washers: category folder is missing"):
        index(tmp_path, categories=["nuts", "washers"])


def test_masks_are_all_or_none_of_a_category(tmp_path: Path) -> None:
    for name in ("bolts", "nuts"):
        make_good_bad(tmp_path / name)
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


def test_one_category_in_mvtec_layout_without_its_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "bolt/test/ok", ["0.png"], 1)
    write_images(tmp_path / "bolt/test/dent", ["0.png"], 2)
    assert count_images(index(tmp_path / "bolt").frame) == {"bolt": SplitCounts(0, 1, 1)}


def test_what_cannot_be_evaluated_is_said(tmp_path: Path) -> None:
    write_images(tmp_path / "only/good", ["0.png"])
    with pytest.raises(DatasetError, match="no normal or no anomalous test image"):
        index(tmp_path / "only")
    with pytest.raises(DatasetError, match=r"good may be called good, ok, normal"):
        index(tmp_path / "only/good")
    write_images(tmp_path / "only/bad", ["0.png"], 3)
    with pytest.raises(DatasetError, match="set counts: any"):
        build_index(FOLDER, tmp_path / "only", protocol="auto", expect_counts=True)


@pytest.mark.parametrize("packed", [False, True])
def test_from_folder_or_archive_to_index(tmp_path: Path, packed: bool) -> None:
    make_good_bad(tmp_path / "mine/bolts")
    source = tmp_path / "mine"
    if packed:
        with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
            for path in sorted(source.rglob("*.*")):
                archive.write(path, path.relative_to(tmp_path))
        source = tmp_path / "mine.zip"
    record = fetch_dataset(FOLDER, tmp_path / "raw/parts", path=source)
    assert record["archives"][0]["verified"] is False
    found = index(tmp_path / "raw/parts")
    assert count_images(found.frame) == {"bolts": SplitCounts(0, 2, 2)}
    with pytest.raises(DatasetError, match="Give the folder"):
        fetch_dataset(FOLDER, tmp_path / "raw/parts")


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ""])
def test_a_given_category_is_the_name_of_a_folder(tmp_path: Path, name: str) -> None:
    make_good_bad(tmp_path / "bolts")
    with pytest.raises(DatasetError, match=r"category '.*' is no name of a folder"):
        index(tmp_path / "bolts", categories=[name])
