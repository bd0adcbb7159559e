"""The sample's archives: official names and quirks, through the same code as the real ones."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from trees import index_tree

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.base.spec import SplitCounts
from fuzzyclip.datasets.fetching.fetch import fetch_dataset
from fuzzyclip.datasets.indexing import count_images
from fuzzyclip.images.decode import load_image, load_mask
from fuzzyclip.sample.archives import (
    count_normal_thirds,
    cover_with_ellipse,
    sample_categories,
    write_archive,
    write_sample_archives,
)
from fuzzyclip.utils.tree import DatasetError

#: Dataset -> folder with its archives, and their checksums.
Samples = dict[str, tuple[Path, dict[str, str]]]
COUNTS = {"train_normal": 1, "test_normal": 3, "test_anomalous": 2}
ARCHIVES = {
    "mvtec": {"mvtec_anomaly_detection.tar.xz"},
    "visa": {"VisA_20220922.tar"},
    "btad": {"btad.zip"},
    "mpdd": {"MPDD.zip"},
    "dagm": {"Class1.zip", "Class4.zip", "Class7.zip"},
    "sdd": {"KolektorSDD.zip"},
    "dtd": {"DTD-Synthetic.zip"},
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("archives")
    return {
        name: (folder / name, write_sample_archives(name, folder / name, seed=5, **COUNTS))
        for name in ARCHIVES
    }


@pytest.fixture(scope="module")
def roots(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Dataset -> dataset root, fetched from the sample's archives."""
    folder = tmp_path_factory.mktemp("raw")
    for name, (archives, checksums) in samples.items():
        spec, categories = get_dataset(name), sample_categories(name)
        places = {"archives_dir": archives, "sha256": checksums, "download": False}
        record = fetch_dataset(spec, folder / name, categories=categories, **places)
        assert all(entry["verified"] for entry in record["archives"])
    return {name: folder / name for name in samples}


@pytest.mark.parametrize("name", ARCHIVES)
def test_official_archive_names(name: str, samples: Samples) -> None:
    folder, checksums = samples[name]
    assert set(checksums) == ARCHIVES[name] == {path.name for path in folder.iterdir()}
    for file, digest in checksums.items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("name", ARCHIVES)
def test_index_has_the_true_counts_and_masks(name: str, roots: dict[str, Path]) -> None:
    spec, categories = get_dataset(name), sample_categories(name)
    frame = index_tree(roots[name], spec, categories=categories).frame
    expected = SplitCounts(**COUNTS)
    if name == "dagm":
        expected = expected._replace(train_anomalous=1)
    if name == "sdd":
        thirds = count_normal_thirds(COUNTS["test_normal"], COUNTS["test_anomalous"])
        expected = expected._replace(train_normal=thirds - COUNTS["test_normal"])
    assert count_images(frame) == dict.fromkeys(categories, expected)
    assert ((frame["mask_path"] != "") == (frame["label"] == 1)).all()
    assert not frame["image_path"].duplicated().any()
    assert [path.name for path in roots[name].parent.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(DatasetError, match=r"missing|published"):  # not the published counts
        index_tree(roots[name], spec, expect_counts=True)


def test_balanced_dagm_is_balanced_and_fixed(roots: dict[str, Path]) -> None:
    options = {"protocol": "balanced", "categories": ["Class4", "Class1"]}
    first, second = (
        index_tree(roots["dagm"], get_dataset("dagm"), **options).frame for _ in range(2)
    )
    assert first.equals(second)
    # 3 anomalous and 4 normal images in both halves
    assert set(count_images(first).values()) == {SplitCounts(1, 3, 3, 0)}


def test_same_seed_same_bytes(samples: Samples, tmp_path: Path) -> None:
    for name in ("dagm", "dtd", "sdd"):
        assert write_sample_archives(name, tmp_path / name, seed=5, **COUNTS) == samples[name][1]
    assert write_sample_archives("dagm", tmp_path, seed=6, **COUNTS) != samples["dagm"][1]


def test_more_images_leave_the_others_as_they_are_and_too_few_are_refused(
    samples: Samples, tmp_path: Path
) -> None:
    write_sample_archives("btad", tmp_path, seed=5, **COUNTS | {"test_normal": 5})
    name = "BTech_Dataset_transformed/01/test/ok/0002.bmp"
    with (
        zipfile.ZipFile(samples["btad"][0] / "btad.zip") as few,
        zipfile.ZipFile(tmp_path / "btad.zip") as many,
    ):
        assert few.read(name) == many.read(name)
    with pytest.raises(ValueError, match="test_anomalous"):
        write_sample_archives("mvtec", tmp_path, seed=0, **COUNTS | {"test_anomalous": 0})


def test_visa_quirks(roots: dict[str, Path]) -> None:
    root = roots["visa"]
    assert (root / "candle/Data/Images/Normal/0003.JPG").is_file()
    assert (root / "candle/Data/Images/Anomaly/001.JPG").is_file()
    width, height = load_image(root / "candle/Data/Images/Normal/0000.JPG").size
    assert width != height
    for path in root.glob("*/Data/Masks/Anomaly/*.png"):
        black, class_id = np.unique(np.asarray(Image.open(path)))
        assert black == 0
        assert class_id <= 9
        assert load_mask(path).any()


def test_mvtec_and_btad_quirks(roots: dict[str, Path]) -> None:
    root = roots["mvtec"]
    assert (root / "license.txt").is_file()
    assert Image.open(root / "grid/train/good/000.png").mode == "L"
    assert load_image(root / "grid/train/good/000.png").mode == "RGB"
    assert len({*root.glob("bottle/test/*/000.png")}) == 3  # good, and a folder a defect
    root = roots["btad"]
    suffixes = [{p.suffix for p in (root / c / "test/ko").iterdir()} for c in ("01", "02", "03")]
    assert suffixes == [{".bmp"}, {".png"}, {".bmp"}]
    assert {p.suffix for p in (root / "01/ground_truth/ko").iterdir()} == {".png"}
    assert Image.open(root / "03/ground_truth/ko/0000.bmp").mode == "RGB"


def test_kolektor_labels_come_in_two_ranges_and_thirds(
    tmp_path: Path, roots: dict[str, Path]
) -> None:
    write_sample_archives("sdd", tmp_path, seed=5, train_normal=0, test_normal=9, test_anomalous=9)
    with zipfile.ZipFile(tmp_path / "KolektorSDD.zip") as archive:
        labels = [name for name in archive.namelist() if name.endswith("_label.bmp")]
        pixels = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in labels]
    assert {int(label.max()) for label in pixels} >= {1, 255}
    assert all(height > 2 * width for height, width in (label.shape for label in pixels))
    assert [*(roots["sdd"] / "electrical commutators").rglob("*_0.png")]
    assert not list(roots["sdd"].glob("kos*"))


def test_dagm_and_dtd_quirks(roots: dict[str, Path], samples: Samples) -> None:
    folder = roots["dagm"] / "Class1/Test"
    assert all(path.suffix == ".PNG" for path in folder.glob("0*"))
    flags = (folder / "Label/Labels.txt").read_text().splitlines()
    assert len(flags) == 1 + COUNTS["test_normal"] + COUNTS["test_anomalous"]
    with zipfile.ZipFile(samples["dtd"][0] / "DTD-Synthetic.zip") as archive:
        assert all(name.endswith(".zip") for name in archive.namelist())


@pytest.mark.parametrize("name", ["a.tar", "a.tar.xz", "a.zip"])
def test_same_members_same_archive(name: str, tmp_path: Path) -> None:
    members = [("folder/x.txt", b"x" * 1000), ("y.txt", b"")]
    for folder in ("first", "second"):
        write_archive(tmp_path / folder / name, members)
    first, second = (tmp_path / folder / name for folder in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    if name != "a.zip":
        with tarfile.open(first) as archive:
            assert {member.mtime for member in archive} == {1577836800}


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_ellipse_covers_the_defect(seed: int, points: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((40, 50), np.bool_)
    mask[rng.integers(0, 40, points), rng.integers(0, 50, points)] = True
    ellipse = cover_with_ellipse(mask)
    assert ellipse[mask].all()
    assert ellipse.sum() > mask.sum()


@given(st.integers(1, 400), st.integers(1, 400))
def test_thirds_make_whole_pictures(test_normal: int, test_anomalous: int) -> None:
    normal = count_normal_thirds(test_normal, test_anomalous)
    assert (normal + test_anomalous) % 3 == 0
    assert -(-normal // 4) == test_normal  # the protocol tests a quarter, rounded up
