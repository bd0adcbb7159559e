"""The index on disk: a table that people and programs read, and what is known of the whole."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fuzzyclip.utils.files import write_json, write_text
from fuzzyclip.utils.tables import format_csv, read_text_table
from fuzzyclip.utils.tree import DatasetError

INDEX_COLUMNS = (
    "image_path",  # POSIX, relative to the dataset root
    "mask_path",  # the same, also a folder of masks to be united; "" if there is no mask
    "category",
    "split",  # "train" or "test"
    "label",  # 0 normal, 1 anomalous
    "defect",  # "good" for normal images, else the dataset's own name of the defect
    "width",
    "height",
    "sha256",  # of the image file; the feature store is bound to it
    "mask_sha256",  # of the mask; what is trained on masks is bound to it. "" if there is none
    "mask_above",  # mask values above this are defect
)
COLUMN_TYPES = dict.fromkeys(("label", "width", "height", "mask_above"), "int64")


@dataclass(frozen=True)
class Index:
    """A dataset's images and what is known of them as a whole.

    Attributes:
        frame: table with the columns `INDEX_COLUMNS`, sorted by category, split and image path.
        info: which dataset, protocol, counts, licence, categories with readable names, dropped
            files, duplicates and notes, as plain data; it travels with every result.
    """

    frame: pd.DataFrame
    info: dict[str, Any]


def write_index(index: Index, table: Path, info: Path) -> None:
    """Write the table as CSV with "\\n" line ends and the rest as JSON."""
    columns = list(INDEX_COLUMNS)
    write_text(table, format_csv(index.frame[columns]))
    write_json(info, index.info)


def read_index(table: Path, root: Path) -> pd.DataFrame:
    """All rows of a table of `write_index` with paths that can be opened, see `place_rows`.

    Categories such as "01" stay strings, an absent mask stays "".

    Raises:
        DatasetError: it is no table, or has other columns.
    """
    try:
        frame = read_text_table(table)
    except ValueError as error:
        raise DatasetError(f"{table}: no index ({error}); build the index again") from error
    if tuple(frame.columns) != INDEX_COLUMNS:
        raise DatasetError(
            f"{table}: columns {list(frame.columns)} instead of {list(INDEX_COLUMNS)}; build the "
            "index again"
        )
    return place_rows(frame, root).astype(COLUMN_TYPES)


def place_rows(frame: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Rows of an index with paths that can be opened, by the dataset's root before them."""
    placed = {
        column: [(root / path).as_posix() if path else "" for path in frame[column]]
        for column in ("image_path", "mask_path")
    }
    return frame.assign(**placed)


def read_info(path: Path) -> dict[str, Any]:
    """The facts of the whole, as `Index.info` has them."""
    info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    return info
