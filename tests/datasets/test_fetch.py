"""Fetching: hostile archives, wrong checksums, dead addresses, data placed by hand."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from toy_archives import FILES, fetch, files_below, toy, zip_bytes

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.base.spec import SplitCounts
from fuzzyclip.datasets.fetching.fetch import fetch_dataset
from fuzzyclip.datasets.indexing import build_index, count_images
from fuzzyclip.utils.tree import DatasetError


@pytest.mark.parametrize(
    "files",
    [
        FILES,
        {f"Toy_v1/data/{name}": content for name, content in FILES.items()},
        {"nut.zip": zip_bytes(FILES), "readme.txt": b"c"},
        {"top/nut.zip": zip_bytes({n.removeprefix("nut/"): c for n, c in FILES.items()})},
        {**FILES, "__MACOSX/nut/test/good/._000.png": b"?"},
    ],
    ids=["flat", "top folders", "nested", "nested without folder", "resource forks"],
)
def test_every_wrapping_gives_the_same_root(files: dict[str, bytes], tmp_path: Path) -> None:
    data = zip_bytes(files)
    (tmp_path / "toy.zip").write_bytes(data)
    fetch(toy(data), tmp_path / "raw/toy", archives_dir=tmp_path)
    found = files_below(tmp_path / "raw/toy")
    assert {n: c for n, c in found.items() if n.startswith("nut/test")} == {
        n: c for n, c in FILES.items() if n.startswith("nut/test")
    }
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["toy"]


def test_record_and_replacement(tmp_path: Path) -> None:
    data = zip_bytes(FILES)
    (tmp_path / "toy.zip").write_bytes(data)
    (tmp_path / "raw/toy").mkdir(parents=True)
    (tmp_path / "raw/toy/old").touch()
    record = fetch(toy(data), tmp_path / "raw/toy", archives_dir=tmp_path)
    assert record == {
        "dataset": "toy",
        "title": "Toy",
        "licence": "CC0",
        "page": "https://example.org/toy",
        "archives": [
            {
                "file": "toy.zip",
                "kind": "archive",
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
                "verified": True,
                "source": "placed by hand",
            }
        ],
    }
    assert files_below(tmp_path / "raw/toy") == FILES


def test_failure_keeps_the_older_folder(tmp_path: Path) -> None:
    (tmp_path / "toy.zip").write_bytes(zip_bytes({"bolt/x.png": b""}))
    (tmp_path / "raw/toy").mkdir(parents=True)
    (tmp_path / "raw/toy/old").touch()
    with pytest.raises(DatasetError, match=r"Toy: nothing named nut inside; found 00/bolt"):
        fetch(toy(), tmp_path / "raw/toy", archives_dir=tmp_path, allow_unverified=True)
    assert files_below(tmp_path / "raw") == {"toy/old": b""}


def test_wrong_checksum_needs_an_explicit_word(tmp_path: Path) -> None:
    (tmp_path / "toy.zip").write_bytes(zip_bytes(FILES))
    spec = toy(b"something else")
    with pytest.raises(DatasetError, match=r"toy\.zip has sha256 .*, expected .*allow_unverified"):
        fetch(spec, tmp_path / "raw", archives_dir=tmp_path)
    assert not (tmp_path / "raw").exists()
    record = fetch(spec, tmp_path / "raw", archives_dir=tmp_path, allow_unverified=True)
    assert record["archives"][0]["verified"] is False
    with pytest.raises(DatasetError, match="correct the checksum given"):
        fetch(
            spec,
            tmp_path / "raw",
            archives_dir=tmp_path,
            sha256={"toy.zip": "0" * 64},
            allow_unverified=True,
        )
    with pytest.raises(DatasetError, match=r"checksums for tyo\.zip"):
        fetch(spec, tmp_path / "raw", archives_dir=tmp_path, sha256={"tyo.zip": "0" * 64})


def test_download_without_a_checksum_needs_an_explicit_word(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no checksum of it is known"):
        fetch(toy(urls=("http://127.0.0.1:1/toy.zip",)), tmp_path / "raw", download=True)


def test_what_somebody_placed_and_nobody_published_a_checksum_of_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "toy.zip").write_bytes(zip_bytes(FILES))
    record = fetch(toy(), tmp_path / "raw", archives_dir=tmp_path)
    assert record["archives"][0]["verified"] is False
    assert record["archives"][0]["sha256"] in caplog.text


@pytest.mark.parametrize("by", ["archives", "name", "path"])
def test_extracted_folder_is_copied(by: str, tmp_path: Path) -> None:
    folder = tmp_path / "archives" / {"archives": "toy", "name": "raw", "path": "mine"}[by]
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    options = {"path": folder} if by == "path" else {"archives_dir": tmp_path / "archives"}
    record = fetch(toy(b"any"), tmp_path / "raw", **options)
    (entry,) = record["archives"]
    assert [entry[key] for key in ("kind", "verified")] == ["folder", False]
    assert files_below(tmp_path / "raw") == FILES == files_below(folder)
    # the folder's own checksum, as the first time recorded it, verifies it the next time
    again = fetch(toy(b"any"), tmp_path / "raw", sha256={entry["file"]: entry["sha256"]}, **options)
    assert again["archives"][0]["verified"] is True
    (folder / "nut/test/good/000.png").write_bytes(b"changed")
    with pytest.raises(DatasetError, match="correct the checksum given"):
        fetch(toy(b"any"), tmp_path / "raw", sha256={entry["file"]: entry["sha256"]}, **options)
    assert files_below(tmp_path / "raw") == FILES


def test_path_of_one_archive_under_any_name(tmp_path: Path) -> None:
    data = zip_bytes(FILES)
    (tmp_path / "copy of toy (1).zip").write_bytes(data)
    record = fetch(toy(data), tmp_path / "raw", path=tmp_path / "copy of toy (1).zip")
    assert record["archives"][0]["verified"] is True
    with pytest.raises(DatasetError, match=r"gone is not there"):
        fetch(toy(data), tmp_path / "raw", path=tmp_path / "gone")
    with pytest.raises(DatasetError, match="10 archives"):
        fetch(get_dataset("dagm"), tmp_path / "dagm", path=tmp_path / "copy of toy (1).zip")


@pytest.mark.parametrize("placed", ["Class2/Class2", "Class2", "."])
def test_one_archive_a_category(placed: str, tmp_path: Path) -> None:
    dagm = get_dataset("dagm")
    for name in ("Class2", "Class9"):
        inside = placed.replace("Class2", name)
        files = {f"{inside}/Test/0001.PNG".removeprefix("./"): b"x"}
        (tmp_path / f"{name}.zip").write_bytes(zip_bytes(files))
    options: dict[str, Any] = {"archives_dir": tmp_path, "allow_unverified": True}
    fetch(dagm, tmp_path / "raw", categories=["Class2", "Class9"], **options)
    assert list(files_below(tmp_path / "raw")) == ["Class2/Test/0001.PNG", "Class9/Test/0001.PNG"]
    with pytest.raises(DatasetError, match=r"DAGM 2007: Class1\.zip is not there"):
        fetch(dagm, tmp_path / "raw", **options)


@pytest.mark.parametrize("name", ["mpdd", "dagm", "dtd"])
def test_gated_dataset_says_what_to_do(name: str, tmp_path: Path) -> None:
    spec = get_dataset(name)
    with pytest.raises(DatasetError) as error:
        fetch(spec, tmp_path / "raw", archives_dir=tmp_path / "archives", download=True)
    place = tmp_path / "archives" / spec.archives[0].filename
    for part in (spec.instructions, str(place), spec.page, spec.licence):
        assert part in str(error.value)


def test_no_download_without_permission(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"btad\.zip is not there and downloads are switched"):
        fetch(get_dataset("btad"), tmp_path / "raw", archives_dir=tmp_path)


@pytest.mark.skipif("FUZZYCLIP_REAL_DATA" not in os.environ, reason="FUZZYCLIP_REAL_DATA not set")
@pytest.mark.parametrize(
    ("name", "categories", "expected"),
    [
        ("visa", ["capsules"], SplitCounts(20, 60, 100)),
        ("sdd", ["electrical commutators"], SplitCounts(171, 58, 11)),
    ],
)
def test_real_cuts(tmp_path: Path, name: str, categories: list[str], expected: SplitCounts) -> None:
    spec = get_dataset(name)
    archives = Path(os.environ["FUZZYCLIP_REAL_DATA"])

    def fetch(allow_unverified: bool) -> None:
        fetch_dataset(
            spec,
            tmp_path / name,
            archives_dir=archives,
            sha256=None,
            allow_unverified=allow_unverified,
            download=False,
        )

    with pytest.raises(DatasetError, match="expected"):
        fetch(allow_unverified=False)
    fetch(allow_unverified=True)
    frame = build_index(
        spec,
        tmp_path / name,
        protocol=spec.default_protocol,
        categories=categories,
        expect_counts=False,
    ).frame
    assert count_images(frame) == dict.fromkeys(categories, expected)
