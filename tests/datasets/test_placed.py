"""Data placed by hand: archives under any name, in parts, within folders; and what is refused."""

import gzip
from pathlib import Path

import pytest
from toy_archives import FILES, fetch, files_below, toy, zip_bytes

from fuzzyclip.datasets import get_dataset
from fuzzyclip.utils.tree import DatasetError

GOOD, HOLE = "nut/test/good/000.png", "nut/test/hole/000.png"
IMAGES = {GOOD: b"a", HOLE: b"b"}
DRIVE = "Toy-20260101T000000Z"


def place(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def images_of(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_below(out).items() if name.endswith(".png")}


WHOLE = zip_bytes(FILES)
INNER = zip_bytes({name.removeprefix("nut/"): content for name, content in IMAGES.items()})
PLACED = {
    "renamed": {"toy (1).zip": WHOLE},
    "an ending of its own": {"download.bin": WHOLE},
    "any name": {"some download": WHOLE, "notes.txt": b"x"},
    "in a folder": {"a/b/Toy v2.zip": WHOLE},
    "wrapped": {"x.zip": zip_bytes({f"Toy/data/{name}": FILES[name] for name in FILES})},
    "the inner zips": {"nut.zip": INNER},
    "the inner zips with their folders": {"Toy/dataset/nut.zip": zip_bytes(IMAGES)},
    "a copy of an inner zip": {"nut (2).zip": INNER},
    "a zip of inner zips": {"download.zip": zip_bytes({"Toy/nut.zip": INNER})},
    "parts of a drive": {
        f"{DRIVE}-001.zip": zip_bytes({f"Toy/{GOOD}": b"a"}),
        f"{DRIVE}-002.zip": zip_bytes({f"Toy/{HOLE}": b"b", "Toy/readme.txt": b"?"}),
    },
    "parts of a drive of inner zips": {
        f"{DRIVE}-1-001.zip": zip_bytes(
            {"Toy/nut.zip": zip_bytes({"nut/test/good/000.png": b"a"})}
        ),
        f"{DRIVE}-1-002.zip": zip_bytes({HOLE: b"b"}),
    },
    "half extracted": {GOOD: b"a", "rest.zip": zip_bytes({HOLE: b"b"})},
    "extracted beside its archive": {**IMAGES, "toy-2.zip": WHOLE},
    "extracted beside what is not read": {**IMAGES, "toy.7z": b"7z\xbc\xaf\x27\x1c" + bytes(99)},
    "resource forks": {"x.zip": WHOLE, "__MACOSX/._x.zip": b"?", "._x.zip": b"\0\5\x16\7"},
    "a folder in itself": {f"nut/{GOOD}": b"a", f"nut/{HOLE}": b"b"},
    "another dataset beside it": {"mvtec.zip": zip_bytes({"bolt/x.png": b"?"}), "x.zip": WHOLE},
}


@pytest.mark.parametrize("case", PLACED)
def test_what_was_placed_is_taken(case: str, tmp_path: Path) -> None:
    placed = place(tmp_path / "placed", PLACED[case])
    before = files_below(placed)
    record = fetch(toy(), tmp_path / "raw/toy", path=placed)
    assert images_of(tmp_path / "raw/toy") == IMAGES
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["toy"]
    assert files_below(placed) == before
    assert all(entry["source"] == "placed by hand" for entry in record["archives"])
    again = {entry["file"]: entry["sha256"] for entry in record["archives"]}
    record = fetch(toy(), tmp_path / "raw/toy", path=placed, sha256=again)  # pinned from then on
    assert all(entry["verified"] for entry in record["archives"])


def test_inner_zips_of_a_known_dataset(tmp_path: Path) -> None:
    """As `DTD-Synthetic.zip` is when somebody has unpacked it once."""
    names = ("Blotchy_099", "Mesh_114", "Woven_001")
    inner = {"test/good/1.png": b"g", "test/bad/1.png": b"d"}
    for number, name in enumerate(names):
        files = {f"{name}/{file}" if number else file: data for file, data in inner.items()}
        place(tmp_path / "p/DTD-Synthetic/dataset", {f"{name}.zip": zip_bytes(files)})
    expected = {f"{name}/{file}": data for name in names for file, data in inner.items()}
    places = {"path": tmp_path / "p"}, {"path": tmp_path / "p/DTD-Synthetic/dataset"}
    for number, options in enumerate((*places, {"archives_dir": tmp_path / "p"})):
        fetch(get_dataset("dtd"), tmp_path / f"raw/{number}", **options)
        assert images_of(tmp_path / f"raw/{number}") == expected


def test_the_published_archive_is_known_by_its_bytes(tmp_path: Path) -> None:
    other = zip_bytes({"nut/test/good/999.png": b"?"})
    placed = place(tmp_path / "p", {"a.zip": other, "b.zip": WHOLE})
    record = fetch(toy(WHOLE), tmp_path / "raw", path=placed)
    assert [(entry["file"], entry["verified"]) for entry in record["archives"]] == [
        ("toy.zip", True)
    ]
    assert images_of(tmp_path / "raw") == IMAGES
    alone = place(tmp_path / "q", {"a.zip": other})
    with pytest.raises(DatasetError, match=r"a\.zip has sha256 .*, expected .*allow_unverified"):
        fetch(toy(WHOLE), tmp_path / "raw", path=alone)


def test_a_renamed_copy_in_the_folder_of_archives_is_taken(tmp_path: Path) -> None:
    place(tmp_path / "archives", {"toy (1).zip": WHOLE, "toys.zip": b"?"})
    record = fetch(toy(WHOLE), tmp_path / "raw", archives_dir=tmp_path / "archives")
    assert record["archives"][0]["verified"]


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "a gap in parts": (
        {f"{DRIVE}-001.zip": WHOLE, f"{DRIVE}-004.zip": WHOLE},
        rf"lacks {DRIVE}-002\.zip, {DRIVE}-003\.zip, parts of the same download; fetch them too",
    ),
    "parts that contradict": (
        {"a.zip": zip_bytes({GOOD: b"1"}), "b.zip": zip_bytes({GOOD: b"2"})},
        r"good/000\.png is there twice and not the same, in .*a\.zip and in .*b\.zip; remove",
    ),
    "7z": ({"toy.7z": b"7z\xbc\xaf\x27\x1c" + bytes(99)}, r"toy\.7z: a 7z archive.*extract it"),
    "rar": ({"toy.rar": b"Rar!\x1a\x07\1\0" + bytes(99)}, r"toy\.rar: a RAR archive.*extract it"),
    "multi-part zip": (
        {"set.z01": WHOLE[:90], "set.zip": WHOLE[90:]},
        r"set\.z01: one part of an archive.*zip -s 0 set\.zip --out whole\.zip(.|\n)*"
        r"set\.zip: the last part of an archive",
    ),
    "volumes": (
        {"toy.zip.001": WHOLE[:90], "toy.zip.002": WHOLE[90:]},
        r"toy\.zip\.001: one part of an archive.*cat toy\.zip\.\* > toy\.zip",
    ),
    "rar volumes": ({"toy.part1.rar": b"Rar!\x1a\x07\1\0"}, r"part1\.rar: one part of an archive"),
    "a web page": ({"toy.zip": b"<!doctype html><p>Log in"}, r"toy\.zip: a web page"),
    "a damaged tar": (
        {"toy.tar.gz": gzip.compress(b"x" * 9000)[:-40], "toy.tar.xz": b"\xfd7zXZ\0" + b"?" * 900},
        r"toy\.tar\.gz: (.|\n)*toy\.tar\.xz: ",
    ),
    "a download of Chrome": (
        {"toy.zip.crdownload": WHOLE},
        r"toy\.zip\.crdownload: an unfinished download; let the browser finish it",
    ),
    "a download of Firefox": ({"toy.zip.part": WHOLE[:90]}, r"toy\.zip\.part: an unfinished"),
    "a download of Opera": ({"toy.tar.opdownload": b"?"}, r"toy\.tar\.opdownload: an unfinished"),
    "a download of Safari": ({"toy.zip.download/toy.zip": WHOLE[:90]}, r"toy\.zip: an unfinished"),
    "a cut zip": ({"copy.zip": WHOLE[:-30]}, r"copy\.zip: no zip or tar file, or its begin or end"),
    "nothing of it": (
        {"bolt/1.png": b"x", "other.zip": zip_bytes({"bolt/2.png": b""})},
        r"nothing named nut in .*, nor in an archive there; found bolt, other\.zip\. Ask the auth",
    ),
    "nothing": ({"empty/.keep": b""}, r"nothing named nut"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_taken_is_named_with_the_mend(case: str, tmp_path: Path) -> None:
    files, message = REFUSED[case]
    placed = place(tmp_path / "placed", files)
    with pytest.raises(DatasetError, match=message):
        fetch(toy(), tmp_path / "raw/toy", path=placed, allow_unverified=True)
    assert not (tmp_path / "raw").exists() or not list((tmp_path / "raw").iterdir())
    assert files_below(placed) == files


def test_an_archive_that_is_not_whole_yet_is_named_beside_the_missing_one(tmp_path: Path) -> None:
    place(tmp_path / "archives", {"toy.zip.crdownload": WHOLE[:90]})
    message = r"toy\.zip is not there \(only toy\.zip\.crdownload, an unfinished download\)"
    with pytest.raises(DatasetError, match=message):
        fetch(toy(), tmp_path / "raw", archives_dir=tmp_path / "archives")


def test_one_part_alone_says_where_the_others_are(tmp_path: Path) -> None:
    placed = place(tmp_path / "p", PLACED["parts of a drive"])
    with pytest.raises(
        DatasetError, match=rf"is one of 2 parts .*give the folder they lie in, {placed}"
    ):
        fetch(toy(), tmp_path / "raw", path=placed / f"{DRIVE}-001.zip")


def test_classes_of_one_archive_each_under_other_names(tmp_path: Path) -> None:
    half = {"Test/0001.PNG": b"x", "Train/0002.PNG": b"y"}
    inside = zip_bytes({f"Class9/{name}": data for name, data in half.items()})
    placed = place(tmp_path / "p", {"class2 - Copy.zip": zip_bytes(half), "download": inside})
    fetch(get_dataset("dagm"), tmp_path / "raw", path=placed, categories=["Class2", "Class9"])
    expected = {f"{name}/{file}" for name in ("Class2", "Class9") for file in half}
    assert set(files_below(tmp_path / "raw")) == expected


def test_a_folder_with_files_of_somebodys_own_is_not_replaced(tmp_path: Path) -> None:
    placed = place(tmp_path / "placed", {"toy.zip": WHOLE})
    out = place(tmp_path / "out", {"thesis/chapter.txt": b"years"})
    with pytest.raises(DatasetError, match=r"out: it holds 2 files .*thesis.* would be lost"):
        fetch(toy(), out, path=placed, replaces=False)
    assert files_below(tmp_path) == {"placed/toy.zip": WHOLE, "out/thesis/chapter.txt": b"years"}
    fetch(toy(), tmp_path / "new", path=placed, replaces=False)
    (tmp_path / "new/index.csv").write_text("of an earlier run")
    fetch(toy(), tmp_path / "new", path=placed, replaces=False)
    assert images_of(tmp_path / "new") == IMAGES
