"""Every file of a folder is an image, a mask, or named as neither: once, and whatever the tree."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from trees import MASK, TOY, index_tree, make_nut, touch, write_images, write_picture

from fuzzyclip.datasets import get_dataset
from fuzzyclip.images.index_file import Index
from fuzzyclip.utils.tree import DatasetError

FOLDER = get_dataset("folder")


def index(root: Path, **options: Any) -> Index:
    return index_tree(root, FOLDER, **options)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    write_images(tmp_path / "parts/good", ["0.png", "1.png"])
    write_images(tmp_path / "parts/bad", ["0.png"], 5)
    return tmp_path / "parts"


def test_what_changes_no_number_is_a_note_a_kind(parts: Path) -> None:
    harmless = {
        "hidden, or left by a system": ["good/Thumbs.db", ".DS_Store", "bad/@eaDir/0.png/T.jpg"],
        "text, tables or annotations": ["README.md", "bad/0.json", "bad/0.xml", "licence.txt"],
        "of a suffix that no image has": ["bad/clip.mp4"],
    }
    for names in harmless.values():
        touch(parts, set(names))
    made = index(parts)
    assert len(made.frame) == 3
    for reason, names in harmless.items():
        (note,) = [note for note in made.info["notes"] if reason in note]
        count = "1 file is" if len(names) == 1 else f"{len(names)} files are"
        assert note.startswith(f"{count} neither image nor mask")


def test_pictures_without_a_place_are_faults_by_folder(parts: Path) -> None:
    write_images(parts, ["loose.png"], 20)
    write_images(parts / "good/good", ["a.png"], 30)
    touch(parts, {f"bad/IMG_{number}.heic" for number in range(120)})
    with pytest.raises(DatasetError) as error:
        index(parts)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("own images: 2 problem(s)")
    assert f"{parts / 'loose.png'}: no folder says that it is normal" in lines[1] + lines[2]
    group = f"{parts / 'bad'}: 120 files (IMG_0.heic, IMG_1.heic, IMG_10.heic, ...): a kind of"
    assert group in lines[1] + lines[2]
    kept = index(parts, on_error="drop")
    assert len(kept.frame) == 4
    assert len(kept.info["dropped"]) == 121
    assert dict(kept.info["dropped"])["bad/IMG_7.heic"].startswith("a kind of picture")


def test_names_with_line_ends_make_no_lines_of_a_message(parts: Path, caplog: Any) -> None:
    odd = "two\nlines\u2028\x1b[31m"
    touch(parts, {f"bad/{odd}.heic", f"good/{odd}.txt", f"bad/{odd}.mp4"})
    write_images(parts / odd / "x", ["a.png", "b.png"], 20)
    write_images(parts / "good" / odd, ["a.png"], 30)
    with caplog.at_level("INFO"), pytest.raises(DatasetError) as error:
        index(parts)
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + int(lines[0].split(": ")[1].split()[0])
    shown = [*lines, *(record.getMessage() for record in caplog.records)]
    assert any("two\\nlines\\u2028\\x1b[31m.txt" in line for line in shown)
    assert all(line.isprintable() for line in shown)


def test_a_problem_of_some_files_hides_no_others_of_their_folder(parts: Path) -> None:
    write_images(parts / "good_cam2", ["a.png", "b.png"], 40)
    touch(parts, {"good_cam2/c.heic", "good_cam2/deeper/notes.txt"})
    with pytest.raises(DatasetError, match=r"c\.heic: a kind of picture that is not read"):
        index(parts)
    kept = index(parts, on_error="drop")
    dropped = {"good_cam2/a.png", "good_cam2/b.png", "good_cam2/c.heic"}
    assert {name for name, _ in kept.info["dropped"]} == dropped
    assert any("good_cam2/deeper/notes.txt" in note for note in kept.info["notes"])


def test_a_link_that_leads_nowhere_is_named(parts: Path) -> None:
    (parts / "good/2.png").symlink_to("gone.png")
    with pytest.raises(DatasetError, match=r"good/2\.png: a link that leads nowhere"):
        index(parts)


def test_pictures_that_a_meta_json_does_not_name_are_said(parts: Path) -> None:
    from fuzzyclip.datasets.base.meta import write_meta

    made = index(parts)
    write_meta(made.frame, made.info, parts / "meta.json")
    write_images(parts / "good", ["2.png"], 40)
    again = index(parts)
    assert again.frame["image_path"].tolist() == made.frame["image_path"].tolist()
    assert any("pictures that nothing names: good/2.png" in note for note in again.info["notes"])


def test_files_of_a_published_dataset_are_notes(tmp_path: Path) -> None:
    nut = make_nut(tmp_path)
    touch(tmp_path, {"nut/license.txt", "readme.txt"})
    write_images(nut / "test/hole/more", ["0.png"], 40)
    write_picture(nut / "ground_truth/0_mask.png", MASK)
    made = index_tree(tmp_path, TOY, expect_counts=True)
    assert made.info["counts"]["nut"]["test_anomalous"] == 3
    assert made.info["notes"] == [
        "2 files are neither image nor mask: pictures that nothing names: "
        "nut/ground_truth/0_mask.png, nut/test/hole/more/0.png",
        "2 files are neither image nor mask: text, tables or annotations (masks must be "
        "pictures): nut/license.txt, readme.txt",
    ]


def test_what_can_not_be_taken_is_listed_with_all_else_and_dropped(parts: Path) -> None:
    (parts / "good/gone.png").symlink_to("nowhere.png")
    write_images(parts / "bad", [os.fsdecode(b"\xff.png")], 9)
    (parts / "bad/broken.png").write_text("no image")
    with pytest.raises(DatasetError) as error:
        index(parts)
    text = str(error.value)
    assert text.startswith("own images: 3 problem(s)")
    for name, why in [
        ("good/gone.png", "a link that leads nowhere"),
        ("bad/\\udcff.png", "a name that is no UTF-8"),
        ("bad/broken.png", "not a readable image"),
    ]:
        (line,) = [line for line in text.splitlines() if name in line]
        assert why in line
    kept = index(parts, on_error="drop")
    assert len(kept.frame) == 3
    assert len(kept.info["dropped"]) == 3
    json.dumps(kept.info, ensure_ascii=False).encode()


def test_a_mask_that_is_called_like_a_result_is_one_only_beside_an_overlay(parts: Path) -> None:
    write_picture(parts / "bad/0.mask.png", MASK)
    assert index(parts).frame["mask_path"].tolist() == ["bad/0.mask.png", "", ""]
    touch(parts, {"bad/0.overlay.jpg"})
    made = index(parts)
    assert made.frame["mask_path"].tolist() == ["", "", ""]
    (note,) = [note for note in made.info["notes"] if "results of fuzzyclip predict" in note]
    assert note.startswith("2 files are")
