"""Dataset descriptions, listing, pairing and what is particular to a dataset."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from imports import ROOT
from PIL import Image
from trees import index_tree

from fuzzyclip.datasets import REGISTRY, get_dataset
from fuzzyclip.datasets.base.layouts import list_images, list_mvtec_tree, pair_masks
from fuzzyclip.datasets.dagm import list_half
from fuzzyclip.images.decode import load_mask
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
    for archive in [a for protocol in spec.protocols for a in spec.list_archives(protocol)]:
        assert archive.format
        assert archive.urls or spec.instructions
        assert archive.sha256 or not archive.urls


def test_unknown_dataset_lists_the_known() -> None:
    with pytest.raises(DatasetError, match="mvtec, visa"):
        get_dataset("mvtec2")


#: Where datasets are named: the registry; the sample, which draws these seven; the paper's tables.
NAMING = ("fuzzyclip/datasets/__init__.py", "fuzzyclip/sample/", "fuzzyclip/report/tables.py")


def test_no_other_file_names_a_dataset() -> None:
    """A new one is a module, a line in the registry and a block of parameters (and no more).

    That this is enough is proven by tests/stages/slow/test_data_versions.py, which adds one.
    """
    own = {f"fuzzyclip/datasets/{dataset}.py" for dataset in OFFICIAL}
    modules = [*(ROOT / "fuzzyclip").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]
    checked = 0
    for path in modules:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(NAMING) or name in own:
            continue
        checked += 1
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value.split("/")[0] not in OFFICIAL, f"{name}:{node.lineno}"
    assert checked > 50
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    del pipeline["artifacts"]  # DVC takes names of models only as they stand
    recipes, default = (ROOT / "Makefile").read_text(), "\nAUXILIARY := visa\n"
    assert default in recipes
    texts = json.dumps(pipeline) + recipes.replace(default, "")
    assert not re.search(rf"\b({'|'.join(OFFICIAL)})\b", texts)


PALETTE = Image.fromarray(np.array([[0, 3]], np.uint8)).convert("P")
PALETTE.putpalette([0, 0, 0] * 256)


@pytest.mark.parametrize(
    "pixels",
    [
        np.array([[0, 255]], np.uint8),
        np.array([[0, 1]], np.uint8),
        np.array([[False, True]]),
        np.array([[[0, 0, 0], [0, 0, 1]]], np.uint8),
        np.array([[[0, 0, 0, 255], [9, 0, 0, 255]]], np.uint8),
        PALETTE,
    ],
    ids=["255", "class id", "one bit", "rgb", "rgba", "indices of a palette"],
)
def test_mask_is_all_above_zero(tmp_path: Path, pixels: "np.ndarray | Image.Image") -> None:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(tmp_path / "m.png")
    assert load_mask(tmp_path / "m.png").tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("protocol", "categories", "message"),
    [
        ("official", ["nut"], "no category 'nut'"),
        ("other", None, "no protocol 'other'; there are official, meta"),
        ("official", None, "cable: category folder is missing"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(
    tmp_path: Path, protocol: str, categories: list[str] | None, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        index_tree(tmp_path, get_dataset("mvtec"), protocol=protocol, categories=categories)


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
        index_tree(tmp_path, get_dataset("visa"), categories=["candle"])
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
    images = [problem.image for problem in listing.problems]
    assert images == ["Class1/Test/0001.PNG", "Class1/Test/0002.PNG"]


def test_kolektor_protocol_tests_286_and_54(tmp_path: Path) -> None:
    sdd = get_dataset("sdd")
    folder = tmp_path / "electrical commutators"
    amounts = {"good": 1143, "defect": 54, "ground_truth/defect": 54}
    for kind, amount in amounts.items():
        (folder / kind).mkdir(parents=True)
        for i in range(amount):
            suffix = "_mask" if "/" in kind else ""
            (folder / kind / f"kos{i:04d}{suffix}.png").write_text(f"{kind}{i}")
    listing = sdd.protocols["dra"].list_rows(tmp_path, list(sdd.categories))
    assert not listing.problems
    tested = [row for row in listing.rows if row.split == "test"]
    assert [sum(row.label == label for row in tested) for label in (0, 1)] == [286, 54]
    assert len(listing.rows) - len(tested) == 857
    # the draw is part of the protocol: numpy's legacy generator, seed 42, on the sorted list
    order = np.random.RandomState(42).permutation(1143)[:286]
    normal = {row.image_path.rsplit("/", 1)[1] for row in tested if not row.label}
    assert normal == {f"kos{i:04d}.png" for i in order}
