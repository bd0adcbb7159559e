"""The index: its table, its checks, dropping, duplicates, hostile and odd trees."""

import hashlib
import re
import string
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from properties import try_examples
from trees import MASK, index_tree, make_nut, picture, spoil, write_images, write_picture

from fuzzyclip.datasets.indexing import name_categories
from fuzzyclip.datasets.sdd import keep_copies_together
from fuzzyclip.images.index_file import INDEX_COLUMNS, Index, read_index, read_info, write_index
from fuzzyclip.utils.tree import DatasetError


def index(root: Path, **options: Any) -> Index:
    """The index of a toy dataset, whose counts are published."""
    return index_tree(root, **{"expect_counts": True} | options)


def test_index_of_a_sound_tree(tmp_path: Path) -> None:
    nut = make_nut(tmp_path)
    (nut / "test/good/Thumbs.db").write_bytes(b"")
    (nut / "test/hole/.hidden.png").write_bytes(b"")
    (nut / "test/good/0.png").rename(nut / "test/good/ünï 0.PNG")
    frame = index(tmp_path).frame
    assert tuple(frame.columns) == INDEX_COLUMNS
    holes, masks = "nut/test/hole", "nut/ground_truth/hole"
    assert frame["image_path"].tolist() == [
        "nut/test/good/1.png", "nut/test/good/ünï 0.PNG",
        *(f"{holes}/{number}.png" for number in range(3)),
        "nut/train/good/0.png", "nut/train/good/1.png",
    ]  # fmt: skip
    expected = ["", "", *(f"{masks}/{number}_mask.png" for number in range(3)), "", ""]
    assert frame["mask_path"].tolist() == expected
    assert frame["defect"].tolist() == ["good"] * 2 + ["hole"] * 3 + ["good"] * 2
    assert frame[["width", "height"]].drop_duplicates().to_numpy().tolist() == [[8, 6]]


def test_an_index_tells_when_a_mask_was_corrected(tmp_path: Path) -> None:
    nut = make_nut(tmp_path)
    before = index(tmp_path).frame
    write_picture(nut / "ground_truth/hole/1_mask.png", np.full((6, 8), 255, np.uint8))
    after = index(tmp_path).frame
    changed = before.ne(after)
    assert changed.any().to_dict() == {name: name == "mask_sha256" for name in INDEX_COLUMNS}
    assert after.loc[changed["mask_sha256"], "image_path"].tolist() == ["nut/test/hole/1.png"]
    digests = [
        hashlib.sha256((tmp_path / path).read_bytes()).hexdigest() if path else ""
        for path in after["mask_path"]
    ]
    assert after["mask_sha256"].tolist() == digests


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    nut = make_nut(tmp_path)
    truth = nut / "ground_truth"
    image = nut / "test/good/1.png"
    image.write_bytes(image.read_bytes()[:-40])
    write_images(nut / "test/hole", ["3.png"], 30)
    write_picture(truth / "hole/0_mask.png", np.zeros_like(MASK))
    (truth / "hole/1_mask.png").write_bytes(b"")
    write_picture(truth / "hole/2_mask.png", MASK.T)
    for name in ("hole/7_mask.png", "good/0_mask.png", "dent/0_mask.png"):
        write_picture(truth / name, MASK)
    with pytest.raises(DatasetError) as error:
        index(tmp_path, expect_counts=False)
    lines = str(error.value).splitlines()
    assert "8 problem(s)" in lines[0]
    for start, end in [
        ("test/good/1.png", "not a readable image"),
        ("test/hole/3.png", "anomalous image has no mask"),
        ("ground_truth/hole/0_mask.png", "anomalous image has an empty mask"),
        ("ground_truth/hole/1_mask.png", "not a readable image"),
        ("ground_truth/hole/2_mask.png", "mask is 6x8, its image 8x6"),
        ("ground_truth/hole/7_mask.png", "mask without an image"),
        ("ground_truth/good/0_mask.png", "normal image has a mask"),
        ("ground_truth/dent", "masks without a folder of images"),
    ]:
        assert any(start in line and end in line for line in lines[1:]), (start, end)


def test_index_file_round_trip(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        [("01/ok/NA.png", "", "01", "test", 0, "good", 3, 4, "0e" * 32, "", 127)],
        columns=list(INDEX_COLUMNS),
    )
    table, facts = tmp_path / "deep/index.csv", tmp_path / "deep/index.json"
    write_index(Index(frame, {"title": "ünï"}), table, facts)
    assert read_info(facts) == {"title": "ünï"}
    assert b"\r" not in table.read_bytes()
    back = read_index(table, Path("raw"))
    frame["image_path"] = "raw/01/ok/NA.png"
    assert back.to_dict("records") == frame.to_dict("records")
    assert set(table.parent.iterdir()) == {table, facts}
    table.write_text("a,b\n")
    with pytest.raises(DatasetError, match="build the index again"):
        read_index(table, Path())


def test_info_says_what_was_indexed(tmp_path: Path) -> None:
    make_nut(tmp_path)
    assert index(tmp_path).info == {
        "dataset": "toy",
        "title": "Toy",
        "page": "https://example.org",
        "licence": "CC0",
        "protocol": "official",
        "summary": "all",
        "masks": "> 0",
        "categories": {"nut": "hex nut"},
        "counts": {
            "nut": {"train_normal": 2, "test_normal": 2, "test_anomalous": 3, "train_anomalous": 0}
        },
        "dropped": [],
        "duplicates": [],
        "notes": [],
    }


def test_drop_leaves_out_and_records_and_still_counts_what_is_there(tmp_path: Path) -> None:
    nut = make_nut(tmp_path)
    whole = set(index(tmp_path).frame["image_path"])
    broken = spoil(nut)
    with pytest.raises(DatasetError, match=r"3 problem\(s\)"):
        index(tmp_path)
    kept = index(tmp_path, on_error="drop")
    assert set(kept.frame["image_path"]) == whole - broken
    dropped = dict(kept.info["dropped"])
    assert set(dropped) == {
        "nut/test/hole/0.png",
        "nut/ground_truth/hole/1_mask.png",
        "nut/ground_truth/hole/9_mask.png",
    }
    assert "6x8" in dropped["nut/ground_truth/hole/1_mask.png"]
    assert kept.info["counts"]["nut"]["test_anomalous"] == 1


def test_drop_mends_no_missing_images(tmp_path: Path) -> None:
    nut = make_nut(tmp_path)
    (nut / "test/good/1.png").unlink()
    with pytest.raises(DatasetError, match=r"test_normal 1.*published.*test_normal 2"):
        index(tmp_path, on_error="drop")
    (nut / "test/good/0.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="no normal or no anomalous test image"):
        index(tmp_path, on_error="drop", expect_counts=False)


def test_duplicates_across_splits_and_labels_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nut = make_nut(tmp_path)
    (nut / "test/good/1.png").write_bytes((nut / "train/good/0.png").read_bytes())
    (nut / "test/hole/1.png").write_bytes((nut / "test/good/0.png").read_bytes())
    (nut / "test/hole/2.png").write_bytes((nut / "test/hole/0.png").read_bytes())  # harmless
    assert index(tmp_path).info["duplicates"] == [
        ["nut/test/good/0.png", "nut/test/hole/1.png"],
        ["nut/test/good/1.png", "nut/train/good/0.png"],
    ]
    assert "nut/train/good/0.png" in caplog.text


def test_masks_above_a_threshold(tmp_path: Path) -> None:
    nut = make_nut(tmp_path)
    for number in range(3):  # as JPEG leaves them: not quite black
        write_picture(nut / f"ground_truth/hole/{number}_mask.png", np.maximum(MASK, 9))
    (nut / "ground_truth/good").mkdir()
    write_picture(nut / "ground_truth/good/0_mask.png", np.full((6, 8), 9, np.uint8))
    with pytest.raises(DatasetError, match="normal image has a mask"):
        index(tmp_path)
    kept = index(tmp_path, mask_above=127)
    assert kept.info["masks"] == "> 127"
    assert set(kept.frame["mask_above"]) == {127}
    with pytest.raises(DatasetError, match="empty mask"):
        index(tmp_path, mask_above=255)


def test_names_in_prompts() -> None:
    info = {"title": "Toy", "categories": {"nut_7": "hex nut", "bolt": "hex bolt"}}
    assert name_categories(info, "readable") == info["categories"]
    assert name_categories(info, "raw") == {"nut_7": "nut_7", "bolt": "bolt"}
    assert name_categories(info, {"bolt": "screw"}) == {"nut_7": "nut_7", "bolt": "screw"}
    with pytest.raises(ValueError, match="names: cap is no category of Toy; there are nut_7, bolt"):
        name_categories(info, {"cap": "lid"})


def test_threads_change_nothing(tmp_path: Path) -> None:
    make_nut(tmp_path)
    for workers in (1, 7):
        assert index(tmp_path, workers=workers).frame.equals(index(tmp_path).frame)


@given(groups=st.lists(st.integers(1, 4), min_size=4, max_size=30), seed=st.integers(0, 2**16))
@try_examples(40)
def test_copies_stay_on_one_side(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("copies")
    contents = [f"{group}" for group, size in enumerate(groups) for _ in range(size)]
    paths = [folder / f"{number:03d}.png" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    order = np.random.default_rng(seed).permutation(len(paths))
    cut = len(paths) // 4
    drawn = [paths[i] for i in order[cut:]], [paths[i] for i in order[:cut]]
    train, test = keep_copies_together(*drawn)
    assert (len(train), len(test)) == (len(drawn[0]), len(drawn[1]))
    assert sorted(train + test) == paths
    on_both = {path.read_text() for path in train} & {path.read_text() for path in test}
    singles = [path for path in train if groups[int(path.read_text())] == 1]
    for content in on_both:  # only where nothing is left to take their places
        assert len(singles) < sum(path.read_text() == content for path in test)
    if not on_both and not {p.read_text() for p in drawn[0]} & {p.read_text() for p in drawn[1]}:
        assert (train, test) == drawn  # a draw without split copies stays as it is


#: Names as people and cameras give them; no separators, not hidden.
NAMES = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\\0"),
    min_size=1,
    max_size=12,
).filter(lambda name: not name.startswith(".") and name.strip() and not name.endswith("_mask"))
SUFFIXES = st.sampled_from([".png", ".PNG", ".Png", ".bmp", ".BMP", ".tiff"])


def fold_name(name: str) -> str:
    """What a file system may take for the same."""
    return unicodedata.normalize("NFKC", name).casefold()


@st.composite
def trees(draw: st.DrawFn) -> dict[str, list[tuple[str, str, str, bool]]]:
    """Folder -> (stem, suffix, mask suffix, mask is there), stems distinct on any file system."""
    tree = {}
    for folder in ("good", "hole", "Riß 2"):
        stems = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=fold_name))
        tree[folder] = [
            (stem, draw(SUFFIXES), draw(SUFFIXES), draw(st.booleans()) or folder == "good")
            for stem in stems
        ]
    return tree


@try_examples(40)
@given(tree=trees(), junk=st.sampled_from(["Thumbs.db", ".DS_Store", ".hidden.png", "notes.txt"]))
def test_any_tree_gives_its_rows_or_names_its_faults(
    tmp_path_factory: pytest.TempPathFactory,
    tree: dict[str, list[tuple[str, str, str, bool]]],
    junk: str,
) -> None:
    root = tmp_path_factory.mktemp("tree")
    expected, missing, number = {}, [], 0
    for folder, images in tree.items():
        for stem, suffix, mask_suffix, masked in images:
            name = f"nut/test/{folder}/{stem}{suffix}"
            write_picture(root / name, picture(number := number + 1))
            mask = ""
            if folder != "good" and masked:
                mask = f"nut/ground_truth/{folder}/{stem}_mask{mask_suffix}"
                write_picture(root / mask, MASK)
            elif folder != "good":
                missing.append(name)
            expected[name] = mask
        (root / f"nut/test/{folder}/{junk}").write_bytes(b"junk")
        truth = root / f"nut/ground_truth/{folder}"
        if truth.is_dir():
            (truth / junk).write_bytes(b"junk")
    if missing:
        with pytest.raises(DatasetError) as error:
            index(root, expect_counts=False)
        for name in missing:
            assert f"{root / name}: anomalous image has no mask" in str(error.value)
        return
    frame = index(root, expect_counts=False).frame
    assert dict(zip(frame["image_path"], frame["mask_path"], strict=True)) == expected
    assert all(row.label == (row.defect != "good") for row in frame.itertuples())


@try_examples(30)
@given(cut=st.integers(0, 120), letters=st.text(string.printable, max_size=40), where=st.booleans())
def test_damaged_bytes_are_named_never_used(
    tmp_path_factory: pytest.TempPathFactory, cut: int, letters: str, where: bool
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    nut = make_nut(root)
    victim = nut / ("test/hole/1.png" if where else "ground_truth/hole/1_mask.png")
    data = victim.read_bytes()
    damaged = data[: min(cut, 40)] + letters.encode()  # before the end of any picture data
    victim.write_bytes(damaged)
    with pytest.raises(DatasetError) as error:
        index(root)
    assert f"{victim}: " in str(error.value)
    assert "0x" not in str(error.value)  # no memory address instead of a name
    assert "nut/test/hole/1.png" not in set(index(root, on_error="drop").frame["image_path"])


def test_odd_pictures(tmp_path: Path) -> None:
    nut = make_nut(tmp_path)
    Image.fromarray(picture(1)).convert("CMYK").save(nut / "test/good/0.png.jpg")
    deep = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000
    write_picture(nut / "test/good/deep.png", deep)
    Image.fromarray(picture(2)).convert("P").save(nut / "test/good/palette.png")
    frame = index(tmp_path, expect_counts=False).frame
    assert len(frame) == 10
    assert set(frame["width"]) == {8}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",test,0,", ",test,2,", "row 1: label '2'"),
        (",test,0,", ",exam,0,", "row 1: split 'exam'"),
        (",3,4,", ",3,4,9,", "row 1: 12 cells, not 11"),
        (",3,4,", ",3,-4,", "row 1: height '-4'"),
        ("01/ok/NA.png", "../ok/NA.png", "row 1: image_path"),
        ("0e0e", "0E0E", "row 1: sha256"),
        ("01/ok", "\udce4/ok", "index.csv: line 2 is no UTF-8"),
    ],
)
def test_a_row_that_no_index_has_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    row = ("01/ok/NA.png", "", "01", "test", 0, "good", 3, 4, "0e" * 32, "", 127)
    table = tmp_path / "index.csv"
    index = Index(pd.DataFrame([row], columns=list(INDEX_COLUMNS)), {})
    write_index(index, table, tmp_path / "index.json")
    text = table.read_text().replace(old, new, 1)
    table.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=re.escape(words)):
        read_index(table, Path())


def test_facts_that_are_no_json_have_their_file(tmp_path: Path) -> None:
    for text in ("{", '{"a": NaN}', "[]", ""):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(DatasetError, match=r"index\.json: "):
            read_info(tmp_path / "index.json")
