"""Dataset descriptions, listing, pairing and the index."""

import ast
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from imports import ROOT
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.datasets import REGISTRY, get_dataset
from fuzzyclip.datasets.base.layouts import list_images, list_mvtec_tree, pair_masks
from fuzzyclip.datasets.base.spec import SplitCounts
from fuzzyclip.datasets.dagm import list_half
from fuzzyclip.datasets.indexing import build_index, count_images
from fuzzyclip.images.decode import load_image, load_mask
from fuzzyclip.images.index_file import INDEX_COLUMNS, Index, read_index, read_info, write_index
from fuzzyclip.utils.tree import DatasetError

SUMS = {
    ("mvtec", "official"): (3629, 467, 1258),
    ("visa", "1cls"): (8659, 962, 1200),
    ("btad", "official"): (1799, 451, 290),
    ("mpdd", "official"): (0, 176, 282),
    ("dagm", "balanced"): (11900, 2100, 2100),
    ("sdd", "dra"): (857, 286, 54),
    ("dtd", "official"): (1200, 357, 947),
    ("sdd", "anomalyclip"): (0, 181, 74),
}
OFFICIAL = [name for name in REGISTRY if name != "folder"]


def write_picture(path: Path, pixels: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_tree(root: Path, category: str = "bottle") -> Path:
    """MVTec layout: one train, one good, two images with a crack."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    mask = np.zeros((12, 16), np.uint8)
    mask[3:6, 4:9] = 255
    folder = root / category
    for name in ("train/good/000", "test/good/000", "test/crack/000", "test/crack/001"):
        write_picture(folder / f"{name}.png", image)
    for name in ("000_mask", "001_mask"):
        write_picture(folder / f"ground_truth/crack/{name}.png", mask)
    return folder


def index_bottle(root: Path, expect_counts: bool = False, **options: Any) -> pd.DataFrame:
    return build_index(
        get_dataset("mvtec"),
        root,
        protocol="official",
        categories=["bottle"],
        expect_counts=expect_counts,
        **options,
    ).frame


@pytest.mark.parametrize(("name", "protocol"), SUMS)
def test_published_counts_add_up(name: str, protocol: str) -> None:
    counts = get_dataset(name).protocols[protocol].counts.values()
    columns = zip(*(count[:3] for count in counts), strict=True)
    assert tuple(sum(n or 0 for n in column) for column in columns) == SUMS[name, protocol]


@pytest.mark.parametrize("name", OFFICIAL)
def test_spec_is_complete(name: str) -> None:
    spec = get_dataset(name)
    assert spec.name == name
    assert spec.page.startswith("https://")
    assert spec.licence
    for protocol in spec.protocols.values():
        assert protocol.summary
        assert set(protocol.counts) == set(spec.categories)
    assert all(spec.categories.values())
    archives = [a for protocol in spec.protocols for a in spec.list_archives(protocol)]
    assert all(archive.format for archive in archives)
    assert all(archive.urls or spec.instructions for archive in archives)
    assert all(archive.sha256 or not archive.urls for archive in archives)


def test_unknown_dataset_lists_the_known() -> None:
    with pytest.raises(DatasetError, match="mvtec, visa"):
        get_dataset("mvtec2")


#: Where datasets are named: the registry; the sample, which draws these seven; the paper's tables.
NAMING = ("fuzzyclip/datasets/__init__.py", "fuzzyclip/sample/", "fuzzyclip/report/tables.py")


def test_no_other_file_names_a_dataset() -> None:
    """A new one is a module, a line in the registry and a block of parameters (and no more).

    That this is enough is proven by tests/stages/slow/test_data_versions.py, which adds one.
    """
    modules = [*(ROOT / "fuzzyclip").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]
    checked = 0
    for path in modules:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(NAMING) or name in {f"fuzzyclip/datasets/{one}.py" for one in OFFICIAL}:
            continue
        checked += 1
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in OFFICIAL, f"{name}:{node.lineno} names {node.value}"
                assert not node.value.startswith(tuple(f"{one}/" for one in OFFICIAL)), name
    assert checked > 50
    pipeline = (ROOT / "dvc.yaml").read_text() + (ROOT / "Makefile").read_text()
    assert not re.search(rf"\b({'|'.join(OFFICIAL)})\b", pipeline)


@pytest.mark.parametrize(
    "pixels",
    [
        np.array([[0, 255]], np.uint8),
        np.array([[0, 1]], np.uint8),
        np.array([[False, True]]),
        np.array([[[0, 0, 0], [0, 0, 1]]], np.uint8),
        np.array([[[0, 0, 0, 255], [9, 0, 0, 255]]], np.uint8),
    ],
    ids=["255", "class id", "one bit", "rgb", "rgba"],
)
def test_mask_is_all_above_zero(tmp_path: Path, pixels: NDArray[np.generic]) -> None:
    write_picture(tmp_path / "m.png", pixels)
    assert load_mask(tmp_path / "m.png").tolist() == [[False, True]]


def test_palette_mask_uses_its_indices(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 3]], np.uint8), mode="L").convert("P")
    image.putpalette([0, 0, 0] * 256)
    image.save(tmp_path / "m.png")
    assert load_mask(tmp_path / "m.png").tolist() == [[False, True]]


def test_unreadable_image_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"not an image")
    with pytest.raises(OSError, match=r"x\.png"):
        load_image(tmp_path / "x.png")


def test_index_of_a_sound_tree(tmp_path: Path) -> None:
    folder = make_tree(tmp_path)
    (folder / "test/good/Thumbs.db").write_bytes(b"")
    (folder / "test/crack/.hidden.png").write_bytes(b"")
    (folder / "test/good/000.png").rename(folder / "test/good/ünï 0.PNG")
    frame = index_bottle(tmp_path)
    assert tuple(frame.columns) == INDEX_COLUMNS
    assert frame["image_path"].tolist() == [
        "bottle/test/crack/000.png",
        "bottle/test/crack/001.png",
        "bottle/test/good/ünï 0.PNG",
        "bottle/train/good/000.png",
    ]
    assert frame["mask_path"].tolist()[:3] == [
        "bottle/ground_truth/crack/000_mask.png",
        "bottle/ground_truth/crack/001_mask.png",
        "",
    ]
    assert frame["defect"].tolist() == ["crack", "crack", "good", "good"]
    assert frame[["width", "height"]].drop_duplicates().to_numpy().tolist() == [[16, 12]]


def test_an_index_tells_when_a_mask_was_corrected(tmp_path: Path) -> None:
    folder = make_tree(tmp_path)
    before = index_bottle(tmp_path)
    path = folder / "ground_truth/crack/001_mask.png"
    write_picture(path, np.full((12, 16), 255, np.uint8))
    after = index_bottle(tmp_path)
    changed = before.ne(after)
    assert changed.any().to_dict() == {name: name == "mask_sha256" for name in INDEX_COLUMNS}
    assert changed["mask_sha256"].tolist() == [False, True, False, False]
    digests = [
        hashlib.sha256((tmp_path / each).read_bytes()).hexdigest() if each else ""
        for each in after["mask_path"]
    ]
    assert after["mask_sha256"].tolist() == digests


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    folder = make_tree(tmp_path)
    image = folder / "test/crack/000.png"
    write_picture(folder / "test/hole/000.png", np.asarray(Image.open(image)))
    write_picture(folder / "test/hole/001.png", np.asarray(Image.open(image)))
    write_picture(folder / "test/hole/002.png", np.asarray(Image.open(image)))
    truth = folder / "ground_truth"
    write_picture(truth / "hole/000_mask.png", np.zeros((12, 16), np.uint8))  # empty
    write_picture(truth / "hole/007_mask.png", np.ones((12, 16), np.uint8))  # of no image
    write_picture(truth / "hole/002_mask.png", np.ones((16, 12), np.uint8))  # turned
    write_picture(truth / "good/000_mask.png", np.ones((12, 16), np.uint8))  # of a good image
    write_picture(truth / "dent/000_mask.png", np.ones((12, 16), np.uint8))  # no such defect
    image.write_bytes(image.read_bytes()[:-40])  # truncated
    (truth / "crack/001_mask.png").write_bytes(b"")
    with pytest.raises(DatasetError) as error:
        index_bottle(tmp_path)
    lines = str(error.value).splitlines()
    assert "8 problem(s)" in lines[0]
    for start, end in [
        ("test/crack/000.png", "not a readable image"),
        ("ground_truth/crack/001_mask.png", "not a readable image"),
        ("ground_truth/hole/000_mask.png", "anomalous image has an empty mask"),
        ("test/hole/001.png", "anomalous image has no mask"),
        ("ground_truth/hole/007_mask.png", "mask without an image"),
        ("ground_truth/hole/002_mask.png", "mask is 12x16, its image 16x12"),
        ("ground_truth/good/000_mask.png", "normal image has a mask"),
        ("ground_truth/dent", "masks without a folder of images"),
    ]:
        assert any(start in line and end in line for line in lines[1:]), (start, end)


def test_counts_are_checked_unless_a_subset_is_declared(tmp_path: Path) -> None:
    make_tree(tmp_path)
    assert count_images(index_bottle(tmp_path)) == {"bottle": SplitCounts(1, 1, 2)}
    with pytest.raises(
        DatasetError, match="published: train_normal 209, test_normal 20, test_anomalous 63"
    ):
        index_bottle(tmp_path, expect_counts=True)


def test_missing_categories_are_named(tmp_path: Path) -> None:
    make_tree(tmp_path)
    mvtec = get_dataset("mvtec")
    with pytest.raises(DatasetError, match=r"cable: category folder is missing"):
        build_index(mvtec, tmp_path, protocol="official", categories=None, expect_counts=False)


@pytest.mark.parametrize(
    ("protocol", "categories", "message"),
    [("official", ["nut"], "no category 'nut'"), ("other", None, "no protocol 'other'")],
)
def test_unknown_choice(
    tmp_path: Path, protocol: str, categories: list[str] | None, message: str
) -> None:
    mvtec = get_dataset("mvtec")
    with pytest.raises(DatasetError, match=message):
        build_index(mvtec, tmp_path, protocol=protocol, categories=categories, expect_counts=False)


def test_masks_pair_by_stem_over_formats() -> None:
    images = [Path("a.bmp"), Path("b.BMP"), Path("c.bmp")]
    masks = [Path("b.png"), Path("a_mask.png"), Path("b_mask.bmp")]
    pairs, problems = pair_masks(images, masks, "_mask")
    assert pairs == {images[0]: masks[1], images[1]: masks[0]}
    assert len(problems) == 1
    assert "second mask" in problems[0].reason


def test_listing_is_sorted_and_opens_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "wood/test/good"
    folder.mkdir(parents=True)
    for name in ("b.png", "a.JPG", "c.txt", ".d.png"):
        (folder / name).touch()
    (folder / "e.png").mkdir()
    assert [path.name for path in list_images(folder)] == ["a.JPG", "b.png"]
    assert len(list_mvtec_tree(tmp_path, ["wood"]).rows) == 2


def test_visa_refuses_a_wrong_pair_and_a_path_outside(tmp_path: Path) -> None:
    (tmp_path / "candle").mkdir()
    (tmp_path / "split_csv").mkdir()
    (tmp_path.parent / "outside.JPG").touch()
    (tmp_path / "split_csv/1cls.csv").write_text(
        "object,split,label,image,mask\n"
        "candle,test,anomaly,candle/000.JPG,candle/001.png\n"
        "candle,test,normal,../outside.JPG,\n"
        "candle,test,odd,candle/0.JPG,\n"
    )
    with pytest.raises(DatasetError) as error:
        build_index(
            get_dataset("visa"),
            tmp_path,
            protocol="1cls",
            categories=["candle"],
            expect_counts=False,
        )
    for part in ("another image's mask", "outside of the dataset", "'odd'", "000.JPG: missing"):
        assert part in str(error.value)


def test_dagm_label_list_must_agree_with_the_label_files(tmp_path: Path) -> None:
    labels = tmp_path / "Class1/Test/Label"
    labels.mkdir(parents=True)
    for name in ("0001.PNG", "0002.PNG", "Label/0002_label.PNG"):
        (labels.parent / name).touch()
    (labels / "Labels.txt").write_text("1\n1\t1\t0001.PNG\t0\t0001_label.PNG\n")
    listing = list_half(tmp_path, "Class1", "Test")
    assert [row.label for row in listing.rows] == [0, 1]
    assert "says 1, label file missing" in listing.problems[0].reason
    assert [problem.image for problem in listing.problems] == [
        "Class1/Test/0001.PNG",
        "Class1/Test/0002.PNG",
    ]


def test_kolektor_protocol_tests_286_and_54(tmp_path: Path) -> None:
    sdd = get_dataset("sdd")
    folder = tmp_path / "electrical commutators"
    for kind, amount, suffix in (
        ("good", 1143, ""),
        ("defect", 54, ""),
        ("ground_truth/defect", 54, "_mask"),
    ):
        (folder / kind).mkdir(parents=True)
        for i in range(amount):
            (folder / kind / f"kos{i:04d}{suffix}.png").write_text(f"{kind}{i}")
    listing = sdd.protocols["dra"].list_rows(tmp_path, list(sdd.categories))
    assert not listing.problems
    tested = [row for row in listing.rows if row.split == "test"]
    assert [sum(row.label == label for row in tested) for label in (0, 1)] == [286, 54]
    assert len(listing.rows) - len(tested) == 857
    # the draw is part of the protocol: numpy's legacy generator, seed 42, on the sorted list
    order = np.random.RandomState(42).permutation(1143)[:286]
    good = {row.image_path.rsplit("/", 1)[1] for row in tested if not row.label}
    assert good == {f"kos{i:04d}.png" for i in order}


def test_index_file_round_trip(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        [("01/ok/NA.png", "", "01", "test", 0, "good", 3, 4, "0e" * 32, "", 127)],
        columns=list(INDEX_COLUMNS),
    )
    info = {"title": "ünï"}
    write_index(Index(frame, info), tmp_path / "deep/index.csv", tmp_path / "deep/index.json")
    assert read_info(tmp_path / "deep/index.json") == info
    assert b"\r" not in (tmp_path / "deep/index.csv").read_bytes()
    back = read_index(tmp_path / "deep/index.csv", Path("raw"))
    frame["image_path"] = "raw/01/ok/NA.png"
    assert back.to_dict("records") == frame.to_dict("records")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [
        "index.csv",
        "index.json",
    ]
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(DatasetError, match="build the index again"):
        read_index(tmp_path / "other.csv", Path())
