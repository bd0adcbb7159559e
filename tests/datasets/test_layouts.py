"""Layouts of people's own folders: which image has which label, split and mask, or what is said."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trees import MASK, index_tree, picture, write_picture

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.base.folder_names import is_like_normal, is_normal
from fuzzyclip.images.index_file import Index
from fuzzyclip.utils.tree import DatasetError

FOLDER = get_dataset("folder")
EMPTY = np.zeros_like(MASK)


def index(root: Path, **options: Any) -> Index:
    return index_tree(root, FOLDER, **options)


def make(root: Path, *names: str, masks: tuple[str, ...] = (), empty: tuple[str, ...] = ()) -> Path:
    """A folder `bolt` of images, masks and masks without a defect, by their paths."""
    for number, name in enumerate(names):
        write_picture(root / "bolt" / name, picture(number))
    for name in (*masks, *empty):
        write_picture(root / "bolt" / name, EMPTY if name in empty else MASK)
    return root / "bolt"


def read(root: Path, **options: Any) -> dict[str, tuple[str, str, str]]:
    """Image -> split, defect, mask."""
    rows = list(index(root, **options).frame.itertuples())
    assert all(row.label == (row.defect != "good") for row in rows)
    return {row.image_path: (row.split, row.defect, row.mask_path) for row in rows}


GOOD, BAD = ("test", "good", ""), ("test", "bad", "")


# --- names


@pytest.mark.parametrize("normal", ["Good", "GOOD", "Ok", "OK", "Normal", "NORMAL"])
@pytest.mark.parametrize("train", ["Train", "TRAIN", "training"])
@pytest.mark.parametrize("test", ["Test", "TEST"])
def test_names_compare_without_case(tmp_path: Path, normal: str, train: str, test: str) -> None:
    root = make(tmp_path, f"{train}/{normal}/0.png", f"{test}/{normal}/0.png", f"{test}/NG/0.png")
    assert read(root) == {
        f"{train}/{normal}/0.png": ("train", "good", ""),
        f"{test}/{normal}/0.png": GOOD,
        f"{test}/NG/0.png": ("test", "NG", ""),
    }


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation"])
def test_validation_is_training_and_no_category(tmp_path: Path, name: str) -> None:
    root = make(tmp_path, f"{name}/good/0.png", f"{name}/bad/0.png", "test/good/0.png")
    make(tmp_path, "test/bad/1.png")
    made = index(root)
    assert set(made.info["counts"]) == {"bolt"}
    assert made.info["counts"]["bolt"]["train_anomalous"] == 1
    assert f"{name}: counts as training, and is never tested" in made.info["notes"]
    (root / "test").rename(root / "train")
    with pytest.raises(DatasetError, match=r"no folder test, and what lies in .*rename the one"):
        index(root)


@pytest.mark.parametrize("name", ["Good_cam2", "good2", "OKparts", "normals", "no_defect", "PASS"])
def test_a_name_that_may_mean_normal_is_a_fault_with_its_mend(tmp_path: Path, name: str) -> None:
    root = make(tmp_path, "good/0.png", "bad/0.png", f"{name}/0.png", f"{name}/1.png")
    with pytest.raises(
        DatasetError, match=rf"{name}: 2 files \(.*\): '{name}' may be .*rename it: good if they"
    ):
        index(root)
    kept = index(root, on_error="drop")
    assert sorted(kept.frame["image_path"]) == ["bad/0.png", "good/0.png"]
    assert [path for path, _ in kept.info["dropped"]] == [f"{name}/0.png", f"{name}/1.png"]
    (root / "good").rename(root / "scratch")  # nor is it taken where nothing else is normal
    with pytest.raises(DatasetError, match="rename it: good if they are normal"):
        index(root)


def test_words_for_defects_are_no_words_for_normal() -> None:
    for name in ("scratch", "hole", "NG", "no thread", "abnormal", "not_good", "missing", "bad"):
        assert not is_normal(name)
        assert not is_like_normal(name)


def test_folders_are_said_before_they_count_as_defects(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path, "good/0.png", "scratch/0.png", "unsorted/0.png", "2024-11-29/0.png")
    notes = index(root).info["notes"]
    assert notes == [
        "bolt, test: taken as defects: scratch",
        "bolt, test: taken as defects, though not called like any: 2024-11-29, unsorted",
    ]
    assert f"warning: {notes[1]}" in caplog.messages


# --- folders of masks


@pytest.mark.parametrize(
    ("folder", "inside", "mark"),
    [
        ("mask", "", ""), ("masks", "bad/", "_mask"), ("Masks", "BAD/", "_gt"), ("gt", "", "_GT"),
        ("GT", "bad/", ""), ("label", "", "_label"), ("labels", "Bad/", ""),
        ("ground_truth", "", "_mask"), ("GroundTruth", "bad/", "_MASK"),
    ],
)  # fmt: skip
def test_masks_in_any_folder_of_masks(tmp_path: Path, folder: str, inside: str, mark: str) -> None:
    masks = tuple(f"{folder}/{inside}{stem}{mark}.png" for stem in ("0", "1"))
    root = make(tmp_path, "good/0.png", "bad/0.png", "bad/1.png", masks=masks)
    assert read(root) == {
        "good/0.png": GOOD,
        "bad/0.png": ("test", "bad", masks[0]),
        "bad/1.png": ("test", "bad", masks[1]),
    }


@pytest.mark.parametrize(
    "masks",
    [
        ("ground_truth/0_mask.png", "ground_truth/1_mask.png"),
        ("ground_truth/test/0.png", "ground_truth/test/bad/1.png"),
        ("test/ground_truth/bad/0_mask.png", "test/ground_truth/1.png"),
        ("test/bad/masks/0.png", "test/bad/masks/1.png"),
        ("test/bad/0_mask.png", "test/bad/1_GT.png"),
        ("Ground_Truth/Bad/0/0.png", "Ground_Truth/Bad/1/7.png"),
    ],
)
def test_masks_of_test_folders_wherever_they_lie(tmp_path: Path, masks: tuple[str, ...]) -> None:
    root = make(
        tmp_path, "train/good/0.png", "test/good/0.png", "test/bad/0.png", "test/bad/1.png",
        masks=masks,
    )  # fmt: skip
    rows = read(root)
    assert [rows[f"test/bad/{stem}.png"][2] for stem in (0, 1)] == list(masks)
    assert len(rows) == 4
    assert not rows["train/good/0.png"][2] + rows["test/good/0.png"][2]


def test_masks_that_fit_several_or_no_image_are_a_fault(tmp_path: Path) -> None:
    root = make(
        tmp_path, "good/0.png", "hole/0.png", "hole/1.png", "dent/0.png", "dent/2.png",
        masks=("masks/0.png", "masks/1.png", "masks/2.png", "masks/2_mask.png", "masks/9.png"),
    )  # fmt: skip
    with pytest.raises(DatasetError) as error:
        index(root)
    for line in (
        "masks/0.png: masks that fit several images",
        "masks/2_mask.png: second masks of an image",
        "masks/9.png: masks without an image of this name",
        "hole/0.png: anomalous image has no mask",
    ):
        assert line in str(error.value)
    kept = index(root, on_error="drop")
    assert len(kept.frame) == 3
    assert {path for path, _ in kept.info["dropped"]} >= {"masks/0.png", "masks/9.png"}


def test_a_defect_may_be_called_as_a_folder_of_masks(tmp_path: Path) -> None:
    """Where the masks lie elsewhere, in a folder of the defect's name."""
    for top, place in (("a", "test/"), ("b", "")):
        root = make(
            tmp_path / top, f"{place}good/0.png", f"{place}label/0.png",
            masks=("ground_truth/label/0_mask.png",),
        )  # fmt: skip
        mask = ("test", "label", "ground_truth/label/0_mask.png")
        assert read(root)[f"{place}label/0.png"] == mask


# --- deeper folders


def test_deeper_folders_belong_to_the_outer_one(tmp_path: Path) -> None:
    root = make(
        tmp_path, "good/batch2/0.png", "good/0.png", "NG/scratch/0.png", "NG/hole/a/0.png",
        masks=("gt/NG/scratch/0.png", "gt/NG/hole/0.png"),
    )  # fmt: skip
    assert read(root) == {
        "good/batch2/0.png": GOOD,
        "good/0.png": GOOD,
        "NG/scratch/0.png": ("test", "NG", "gt/NG/scratch/0.png"),
        "NG/hole/a/0.png": ("test", "NG", "gt/NG/hole/0.png"),
    }
    deeper = "deeper inside count as their outer folder's: NG/hole/a, NG/scratch, good/batch2"
    assert any(deeper in note for note in index(root).info["notes"])


@pytest.mark.parametrize("place", ["good/bad", "bad/good", "bad/Good_2", "good/test", "bad/x/val"])
def test_folders_that_contradict_each_other_are_a_fault(tmp_path: Path, place: str) -> None:
    root = make(tmp_path, "good/0.png", "bad/0.png", f"{place}/1.png")
    with pytest.raises(DatasetError, match=rf"{re.escape(str(root / place))}: '.*(move|put) "):
        index(root)
    assert len(index(root, on_error="drop").frame) == 2


def test_categories_inside_of_a_split_are_a_fault(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a/good/0.png", "test/a/good/0.png", "test/a/bad/0.png")
    with pytest.raises(DatasetError, match="where 'a' is a category put that outermost"):
        index(root)


def test_each_category_may_have_its_own_layout(tmp_path: Path) -> None:
    make(tmp_path, "good/0.png", "bad/0.png")
    for name in ("test/good/0.png", "test/bad/0.png"):
        write_picture(tmp_path / "nut" / name, picture(len(name)))
    made = index(tmp_path)
    assert set(made.info["counts"]) == {"bolt", "nut"}
    alone = index(tmp_path, categories=["nut"])
    assert set(alone.frame["category"]) == {"nut"}
    assert alone.info["notes"][-1] == (
        "2 files are neither image nor mask: of a category that was not asked for: bolt/bad/0.png, "
        "bolt/good/0.png"
    )


# --- layouts of other datasets


def test_kolektorsdd2(tmp_path: Path) -> None:
    names = [f"{split}/{stem}.png" for split in ("train", "test") for stem in (10000, 10001)]
    masks = [name.replace(".", "_GT.") for name in names]
    root = make(tmp_path, *names, masks=(masks[1], masks[2]), empty=(masks[0], masks[3]))
    assert read(root) == {
        names[0]: ("train", "good", masks[0]),
        names[1]: ("train", "bad", masks[1]),
        names[2]: ("test", "bad", masks[2]),
        names[3]: ("test", "good", masks[3]),
    }
    (root / masks[3]).write_bytes(b"broken")
    (root / masks[2]).unlink()
    with pytest.raises(DatasetError) as error:
        index(root)
    assert f"{masks[3]}: not a readable image" in str(error.value)
    assert f"{names[2]}: no mask says that it is normal" in str(error.value)


def test_images_beside_masks_without_folders_of_labels(tmp_path: Path) -> None:
    names = ("images/0.png", "images/1.png")
    root = make(tmp_path, *names, masks=("masks/0.png",), empty=("masks/1.png",))
    expected = {names[0]: ("test", "bad", "masks/0.png"), names[1]: ("test", "good", "masks/1.png")}
    assert read(root) == expected
    (root / "masks/1.png").unlink()
    with pytest.raises(DatasetError, match=r"images/1\.png: no mask says that it is normal"):
        index(root)


def test_images_of_labels_beside_masks(tmp_path: Path) -> None:
    root = make(tmp_path, "images/good/0.png", "images/bad/0.png", masks=("masks/bad/0.png",))
    assert read(root) == {
        "images/good/0.png": GOOD,
        "images/bad/0.png": ("test", "bad", "masks/bad/0.png"),
    }


def test_mvtec_loco_unites_the_masks_of_an_image(tmp_path: Path) -> None:
    truth = "ground_truth/logical_anomalies/000"
    single = "ground_truth/structural_anomalies/000/000.png"
    root = make(
        tmp_path, "train/good/000.png", "validation/good/000.png", "test/good/000.png",
        "test/logical_anomalies/000.png", "test/structural_anomalies/000.png",
        masks=(f"{truth}/000.png", single),
    )  # fmt: skip
    write_picture(root / truth / "001.png", np.flip(MASK).copy())
    rows = read(root)
    assert rows["validation/good/000.png"] == ("train", "good", "")
    assert rows["test/logical_anomalies/000.png"] == ("test", "logical_anomalies", truth)
    assert rows["test/structural_anomalies/000.png"] == ("test", "structural_anomalies", single)
    before = index(root).frame.set_index("mask_path").loc[truth, "mask_sha256"]
    write_picture(root / truth / "002.png", MASK)
    after = index(root).frame.set_index("mask_path").loc[truth, "mask_sha256"]
    assert before != after
    write_picture(root / truth / "003.png", MASK.T)
    with pytest.raises(DatasetError, match=f"{truth}: masks of different sizes of one image"):
        index(root)


def test_mvtec_ad_2(tmp_path: Path) -> None:
    mask = "test_public/ground_truth/bad/000_mask.png"
    root = make(
        tmp_path, "train/good/000.png", "validation/good/000.png", "test_public/good/000.png",
        "test_public/bad/000.png", "test_private/000.png", "test_private_mixed/000.png",
        masks=(mask,),
    )  # fmt: skip
    made = index(root)
    rows = read(root)
    assert rows["test_public/bad/000.png"] == ("test", "bad", mask)
    assert len(rows) == 4
    assert any("test images without labels: test_private/000.png" in n for n in made.info["notes"])


# --- nothing is used without a word, and nothing at all is a fault


@pytest.mark.parametrize("names", [("test/0.png",), ("train/0.png", "test/1.png"), ("0.png",)])
def test_no_rows_are_a_fault(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = make(tmp_path, *names)
    for on_error in ("fail", "drop"):
        with pytest.raises(DatasetError):
            index(root, on_error=on_error)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no images in a layout that is known"):
        index(tmp_path / "empty")
    (tmp_path / "empty/meta.json").write_text('{"train": {}, "test": {}}')
    with pytest.raises(DatasetError, match="no image is there that can be used"):
        index(tmp_path / "empty")


def test_results_of_an_earlier_run_are_no_images(tmp_path: Path) -> None:
    root = make(tmp_path, "good/0.png", "bad/0.png", "found/0.jpg", "out/bad/0.overlay.jpg")
    make(tmp_path, "good/0.map.png", "bad/0.mask.png", "out/0.overlay_scaled_to_image.jpg")
    make(tmp_path, "bad/0.map.png")  # without it the mask beside could be a person's
    for name in ("scores.jsonl", "settings.json"):
        (root / "found" / name).touch()
    made = index(root)
    assert sorted(made.frame["image_path"]) == ["bad/0.png", "good/0.png"]
    (note,) = [note for note in made.info["notes"] if "predict" in note]
    assert note.startswith("8 files are neither image nor mask: results of fuzzyclip predict: ")


def test_results_in_folders_of_their_own_are_no_category(tmp_path: Path) -> None:
    make(tmp_path / "data/2024", "good/0.png", "bad/0.png")
    for name in ("good/0.overlay.jpg", "scores.jsonl", "settings.json"):
        write_picture(tmp_path / "data/found/x.png", MASK)
        (tmp_path / "data/found" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/found" / name).touch()
    assert set(index(tmp_path / "data").info["counts"]) == {"bolt"}


def test_a_category_may_begin_like_good(tmp_path: Path) -> None:
    for name in ("goodyear", "okra"):
        make(tmp_path / "made", "good/0.png", "bad/0.png").rename(tmp_path / name)
    (tmp_path / "made").rmdir()
    assert set(index(tmp_path).info["counts"]) == {"goodyear", "okra"}


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.3, ""), (0.6, "covers more than half"), (0.95, "as an inverted mask does")],
)
def test_a_mask_that_covers_much_is_a_warning(tmp_path: Path, share: float, words: str) -> None:
    root = make(tmp_path, "good/0.png", "bad/0.png")
    pixels = np.zeros(48, np.uint8)
    pixels[: round(48 * share)] = 255
    write_picture(root / "gt/bad/0.png", pixels.reshape(6, 8))
    notes = [note for note in index(root).info["notes"] if "the mask gt/bad/0.png" in note]
    assert len(notes) == bool(words)
    assert all(words in note for note in notes)


def test_a_photograph_among_masks_is_a_warning(tmp_path: Path) -> None:
    root = make(tmp_path, "good/0.png", "bad/0.png", "label/0.png")
    notes = index(root).info["notes"]
    assert "bolt, test: taken as folders of masks: label" in notes
    assert any("mask label/0.png is above 0 nearly everywhere" in note for note in notes)


def test_a_mask_of_jpeg_is_a_warning_until_mask_above_is_raised(tmp_path: Path) -> None:
    root = make(tmp_path, "good/0.png", "bad/0.png")
    (root / "gt").mkdir()
    noise = np.random.default_rng(0).integers(0, 9, (6, 8), dtype=np.uint8)
    Image.fromarray(np.maximum(MASK, noise)).save(root / "gt/0.png", "JPEG")
    assert any("raise mask_above" in n or "covers" in n for n in index(root).info["notes"])
    assert not any("mask_above" in n for n in index(root, mask_above=127).info["notes"])
