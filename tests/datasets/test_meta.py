"""meta.json: written as the field reads it, read as the field writes it."""

import json
from pathlib import Path
from typing import Any

import pytest
from trees import MASK, TOY, index_tree, make_nut, write_images, write_picture

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.base.meta import write_meta
from fuzzyclip.datasets.base.spec import SplitCounts
from fuzzyclip.datasets.fetching.fetch import fetch_dataset
from fuzzyclip.datasets.indexing import build_index, count_images
from fuzzyclip.utils.tree import DatasetError


def item(path: str, category: str, specie: str, mask: str = "", **changes: Any) -> dict[str, Any]:
    return {
        "img_path": path,
        "mask_path": mask,
        "cls_name": category,
        "specie_name": specie,
        "anomaly": int(bool(mask)),
        **changes,
    }


def test_written_form_and_what_is_read_of_it(tmp_path: Path) -> None:
    make_nut(tmp_path)
    index = build_index(TOY, tmp_path, protocol="official")
    write_meta(index.frame, index.info, tmp_path / "meta.json")
    text = (tmp_path / "meta.json").read_text()
    data = json.loads(text)
    assert text == json.dumps(data, indent=4, ensure_ascii=False) + "\n"
    assert list(data) == ["train", "test", "info"]
    assert data["train"]["nut"] == [
        item("nut/train/good/0.png", "nut", "good"), item("nut/train/good/1.png", "nut", "good")
    ]  # fmt: skip
    hole = item("nut/test/hole/0.png", "nut", "hole", "nut/ground_truth/hole/0_mask.png")
    assert hole in data["test"]["nut"]
    assert list(data["test"]["nut"][0]) == list(hole)  # the field's order of keys
    assert data["info"]["protocol"] == "official"
    again = build_index(TOY, tmp_path, protocol="meta")
    assert again.frame.equals(index.frame)
    assert again.info["protocol"] == "meta"


@pytest.mark.parametrize("name", ["SDD", "electrical_commutators", "electrical commutators"])
def test_data_prepared_for_others_works_here(name: str, tmp_path: Path) -> None:
    """A dataset as AnomalyCLIP's script leaves it: any tree, and a meta.json that says all."""
    sdd, root = get_dataset("sdd"), tmp_path / "archives/sdd"
    write_images(root / name / "pictures", [f"{i}.png" for i in range(5)])
    masks = ["", "", "", f"{name}/other/3.png", f"{name}/other/4.png"]
    for mask in filter(None, masks):
        write_picture(root / mask, MASK)
    items = [item(f"{name}/pictures/{i}.png", name, "", mask) for i, mask in enumerate(masks)]
    (root / "meta.json").write_text(json.dumps({"train": {}, "test": {name: items}}))
    fetch_dataset(sdd, tmp_path / "raw/x", protocol="meta", archives_dir=tmp_path / "archives")
    index = index_tree(tmp_path / "raw/x", sdd, protocol="meta")
    assert count_images(index.frame) == {"electrical commutators": SplitCounts(0, 3, 2)}
    assert set(index.frame["defect"]) == {"good", "bad"}  # VisA's form: no name of the defect
    with pytest.raises(DatasetError, match=r"published: .*286.*\n.*published: .*181"):
        build_index(sdd, tmp_path / "raw/x", protocol="meta")


def test_counts_of_any_protocol_will_do(tmp_path: Path) -> None:
    make_nut(tmp_path)
    write_meta(build_index(TOY, tmp_path, protocol="official").frame, {}, tmp_path / "meta.json")
    (tmp_path / "nut/train/good/1.png").unlink()
    data = json.loads((tmp_path / "meta.json").read_text())
    data["train"]["nut"].pop()
    (tmp_path / "meta.json").write_text(json.dumps(data))
    with pytest.raises(DatasetError, match=r"train_normal 1.*published: train_normal 2.*--subset"):
        build_index(TOY, tmp_path, protocol="meta")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing, but the protocol reads it"),
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"test": {"nut": [], "nut": []}}', r"meta\.json.*the key 'nut' is there twice"),
        ("[]", '"train" is no object of lists'),
        ('{"test": {"nut": {}}}', '"test" is no object of lists'),
        ({"test": {"nut": [{"img_path": "x.png"}]}}, "lacks one of img_path"),
        ({"test": {"nut": [item("nut/x.png", "bolt", "good")]}}, "cls_name 'bolt' in 'nut'"),
        ({"test": {"nut": [item("nut/x.png", "nut", "good", anomaly=2)]}}, "anomaly 2"),
        ({"test": {"nut": [item("nut/x.png", "nut", "good")] * 2}}, "listed twice"),
        ({"test": {"nut": [item("../../x.png", "nut", "good")]}}, "outside of the dataset"),
        ({"test": {"nut": [item("nut/gone.png", "nut", "good")]}}, "missing"),
    ],
    ids=[
        "none",
        "cut",
        "deep",
        "category",
        "list",
        "object",
        "keys",
        "class",
        "label",
        "twice",
        "outside",
        "gone",
    ],
)  # fmt: skip
def test_faults_are_named(content: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "nut").mkdir()
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "meta.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        index_tree(tmp_path, protocol="meta")


def test_a_category_is_never_a_path(tmp_path: Path) -> None:
    data = {"test": {"../x": [item("a.png", "../x", "good")]}}
    (tmp_path / "meta.json").write_text(json.dumps(data))
    with pytest.raises(DatasetError, match="is no file name"):
        index_tree(tmp_path, get_dataset("folder"), protocol="meta")


@pytest.mark.parametrize("separator", ["\\", "/", "mixed"])
def test_paths_of_windows_are_read(separator: str, tmp_path: Path) -> None:
    make_nut(tmp_path)
    index = build_index(TOY, tmp_path, protocol="official")
    write_meta(index.frame, {}, tmp_path / "meta.json")
    text = (tmp_path / "meta.json").read_text()
    if separator == "mixed":
        text = text.replace("nut/test", r"nut\\test")
    elif separator == "\\":
        text = text.replace("/", r"\\")
    content = text.replace("\n", "\r\n").encode("utf-8-sig")  # as an editor there leaves it
    (tmp_path / "meta.json").write_bytes(content)
    assert build_index(TOY, tmp_path, protocol="meta").frame.equals(index.frame)


@pytest.mark.parametrize(
    "path", ["C:\\data\\0.png", "c:/data/0.png", "\\\\server\\share\\0.png", "\\0.png", "/0.png"]
)
@pytest.mark.parametrize("key", ["img_path", "mask_path"])
def test_a_path_from_the_root_of_a_disk_is_refused_with_words(
    path: str, key: str, tmp_path: Path
) -> None:
    make_nut(tmp_path)
    items = [item("nut/test/hole/0.png", "nut", "hole", "nut/m.png", **{key: path})]
    (tmp_path / "meta.json").write_text(json.dumps({"test": {"nut": items}}))
    with pytest.raises(
        DatasetError, match=rf"{key} .* paths must be relative to the folder that me"
    ):
        index_tree(tmp_path, protocol="meta")


def test_a_way_up_with_backslashes_is_refused_and_a_name_with_one_is_itself(tmp_path: Path) -> None:
    make_nut(tmp_path)
    write_images(tmp_path / "nut/test/good", ["a\\b.png"], 40)
    good = [
        item(name, "nut", "good") for name in ("nut/test/good/a\\b.png", "nut\\test\\good\\1.png")
    ]
    bad = item("nut/test/hole/0.png", "nut", "hole", "nut\\ground_truth\\hole\\0_mask.png")
    (tmp_path / "meta.json").write_text(json.dumps({"test": {"nut": [*good, bad]}}))
    frame = index_tree(tmp_path, protocol="meta").frame
    assert set(frame["image_path"]) == {
        "nut/test/good/a\\b.png",
        "nut/test/good/1.png",
        "nut/test/hole/0.png",
    }
    up = [item("nut\\..\\..\\x.png", "nut", "good"), bad]
    (tmp_path / "meta.json").write_text(json.dumps({"test": {"nut": up}}))
    with pytest.raises(DatasetError, match="outside of the dataset"):
        index_tree(tmp_path, protocol="meta")
