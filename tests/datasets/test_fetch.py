"""Fetching: hostile archives, wrong checksums, dead addresses, data placed by hand."""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from toy_archives import FILES, fetch, files_below, toy, zip_bytes
from trees import index_tree

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.base.spec import SplitCounts
from fuzzyclip.datasets.fetching.fetch import compute_tree_sha256
from fuzzyclip.datasets.indexing import count_images
from fuzzyclip.utils.tree import DatasetError, copy_tree, read_tree

IMAGES = {name: content for name, content in FILES.items() if name.startswith("nut/test")}


@pytest.mark.parametrize(
    "files",
    [
        FILES,
        {f"Toy_v1/data/{name}": content for name, content in FILES.items()},
        {"nut.zip": zip_bytes(FILES), "readme.txt": b"c"},
        {"top/nut.zip": zip_bytes({n.removeprefix("nut/"): c for n, c in IMAGES.items()})},
        {**FILES, "__MACOSX/nut/test/good/._000.png": b"?"},
    ],
    ids=["flat", "top folders", "nested", "nested without folder", "resource forks"],
)
def test_every_wrapping_gives_the_same_root(files: dict[str, bytes], tmp_path: Path) -> None:
    data = zip_bytes(files)
    (tmp_path / "toy.zip").write_bytes(data)
    fetch(toy(data), tmp_path / "raw/toy", archives_dir=tmp_path)
    fetched = files_below(tmp_path / "raw/toy").items()
    assert {name: content for name, content in fetched if name.startswith("nut/test")} == IMAGES
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["toy"]


def test_an_older_folder_is_kept_at_a_failure_and_else_replaced(tmp_path: Path) -> None:
    (tmp_path / "toy.zip").write_bytes(zip_bytes({"bolt/x.png": b""}))
    (tmp_path / "raw/toy").mkdir(parents=True)
    (tmp_path / "raw/toy/old").touch()
    with pytest.raises(DatasetError, match=r"Toy: nothing named nut inside; found 00/bolt"):
        fetch(toy(), tmp_path / "raw/toy", archives_dir=tmp_path, allow_unverified=True)
    assert files_below(tmp_path / "raw") == {"toy/old": b""}
    data = zip_bytes(FILES)
    (tmp_path / "toy.zip").write_bytes(data)
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


def test_wrong_checksum_needs_an_explicit_word(tmp_path: Path) -> None:
    (tmp_path / "toy.zip").write_bytes(zip_bytes(FILES))
    spec = toy(b"something else")
    with pytest.raises(DatasetError, match=r"toy\.zip has sha256 .*, expected .*allow_unverified"):
        fetch(spec, tmp_path / "raw", archives_dir=tmp_path)
    assert not (tmp_path / "raw").exists()
    record = fetch(spec, tmp_path / "raw", archives_dir=tmp_path, allow_unverified=True)
    assert record["archives"][0]["verified"] is False
    given = {"sha256": {"toy.zip": "0" * 64}, "allow_unverified": True}
    with pytest.raises(DatasetError, match="correct the checksum given"):
        fetch(spec, tmp_path / "raw", archives_dir=tmp_path, **given)
    with pytest.raises(DatasetError, match=r"checksums for tyo\.zip"):
        fetch(spec, tmp_path / "raw", archives_dir=tmp_path, sha256={"tyo.zip": "0" * 64})


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


def test_what_can_not_be_downloaded_says_what_to_do(tmp_path: Path) -> None:
    for spec in map(get_dataset, ("mpdd", "dagm", "dtd")):
        with pytest.raises(DatasetError) as error:
            fetch(spec, tmp_path / "raw", archives_dir=tmp_path / "archives", download=True)
        place = tmp_path / "archives" / spec.archives[0].filename
        for part in (spec.instructions, str(place), spec.page, spec.licence):
            assert part in str(error.value)
    with pytest.raises(DatasetError, match=r"btad\.zip is not there and downloads are switched"):
        fetch(get_dataset("btad"), tmp_path / "raw", archives_dir=tmp_path)
    with pytest.raises(DatasetError, match="no checksum of it is known"):
        fetch(toy(urls=("http://127.0.0.1:1/toy.zip",)), tmp_path / "raw", download=True)


NAMES = st.text(st.sampled_from("ab ü.0"), min_size=1, max_size=4).filter(
    lambda name: name.strip(".")
)


@try_examples(20)
@given(places=st.lists(st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=6))
def test_the_digest_is_of_what_is_copied_and_of_sha256sum(
    places: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for number, parts in enumerate(places):
        path = root / "from" / Path(*parts)
        if not path.exists() and all(p.is_dir() for p in path.parents if p.exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(number))
    (root / "from/link").symlink_to(Path(*places[0]))
    (root / "from/.hidden").mkdir()
    tree = read_tree(root / "from")
    copy_tree(tree, root / "to")
    assert files_below(root / "to") == files_below(root / "from")
    assert sorted(files_below(root / "to")) == sorted(tree.files)
    assert (root / "to/.hidden").is_dir()
    assert compute_tree_sha256(read_tree(root / "to")) == compute_tree_sha256(tree)
    names = [f"{name}\0" for name in tree.files]
    lines = subprocess.run(
        ["xargs", "-0", "sha256sum"], input="".join(names), cwd=root / "to",
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert hashlib.sha256(lines.encode()).hexdigest() == compute_tree_sha256(tree)


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
    with pytest.raises(DatasetError, match="expected"):
        fetch(spec, tmp_path / name, archives_dir=archives)
    fetch(spec, tmp_path / name, archives_dir=archives, allow_unverified=True)
    frame = index_tree(tmp_path / name, spec, categories=categories).frame
    assert count_images(frame) == dict.fromkeys(categories, expected)
