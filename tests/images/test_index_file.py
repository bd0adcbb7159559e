"""The index as a table: every name comes back, whatever an editor did to line ends."""

from pathlib import Path

import pandas as pd
import pytest
from odd_names import STRANGE, TAKEN_FOR_OTHERS

from fuzzyclip.images.index_file import (
    COLUMN_TYPES,
    INDEX_COLUMNS,
    Index,
    read_index,
    read_info,
    write_index,
)
from fuzzyclip.utils.files import is_file_name
from fuzzyclip.utils.tree import DatasetError


def make_index(names: tuple[str, ...]) -> Index:
    """A normal and an anomalous image in a category of each name, of a defect of that name.

    What no folder is called is no category.
    """
    names = tuple(filter(is_file_name, names))
    lines = [
        (
            *(f"{name}/{label}/{name}.png", f"{name}/m/{name}.png" if label else "", name, "test"),
            *(label, name if label else "good", 8, 6, "0" * 64, "1" * 64 if label else "", 0),
        )
        for name in names
        for label in (0, 1)
    ]
    frame = pd.DataFrame(lines, columns=[*INDEX_COLUMNS]).astype(COLUMN_TYPES)
    return Index(frame, {"categories": {name: name for name in names}})


def test_every_name_comes_back(tmp_path: Path) -> None:
    index = make_index(STRANGE)
    write_index(index, tmp_path / "a.csv", tmp_path / "a.json")
    frame, root = read_index(tmp_path / "a.csv", Path("root")), "root/"
    for column in INDEX_COLUMNS:
        expected = index.frame[column].tolist()
        if column in ("image_path", "mask_path"):
            expected = [(Path("root") / path).as_posix() if path else "" for path in expected]
        assert frame[column].tolist() == expected, column
    assert frame["image_path"].str.startswith(root).all()
    assert read_info(tmp_path / "a.json") == index.info


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_byte_order_mark_change_nothing(mark: bytes, tmp_path: Path) -> None:
    write_index(make_index(TAKEN_FOR_OTHERS), tmp_path / "a.csv", tmp_path / "a.json")
    expected = read_index(tmp_path / "a.csv", tmp_path)
    info = read_info(tmp_path / "a.json")
    for name in ("a.csv", "a.json"):
        content = (tmp_path / name).read_bytes().replace(b"\n", b"\r\n")
        (tmp_path / name).write_bytes(mark + content)
    pd.testing.assert_frame_equal(read_index(tmp_path / "a.csv", tmp_path), expected)
    assert read_info(tmp_path / "a.json") == info


@pytest.mark.parametrize("content", ["", "image_path\n", '"', "a,b\n1,2,3\n"])
def test_what_is_no_index_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DatasetError, match=r"a\.csv: .*(build the index again|anew|make it again)"):
        read_index(tmp_path / "a.csv", tmp_path)
