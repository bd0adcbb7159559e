"""The index on disk: a table that people and programs read, and what is known of the whole."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fuzzyclip.utils.faults import naming
from fuzzyclip.utils.files import is_file_name, write_json, write_text
from fuzzyclip.utils.json_text import parse_json
from fuzzyclip.utils.tables import format_csv
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
#: How cells are written.
FORMS = {
    "split": re.compile("train|test"),
    "label": re.compile("[01]"),
    "width": re.compile("[1-9][0-9]{0,8}"),
    "height": re.compile("[1-9][0-9]{0,8}"),
    "sha256": re.compile("[0-9a-f]{64}"),
    "mask_sha256": re.compile("([0-9a-f]{64})?"),
    "mask_above": re.compile("0|[1-9][0-9]{0,4}"),
}


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
        DatasetError: the file is no such table, or a row says what no index has; names the row.
    """
    with naming(table, DatasetError), table.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file, strict=True))
    head, rows = (lines[0], lines[1:]) if lines else ([], [])
    if tuple(head) != INDEX_COLUMNS:
        wanted = f"columns {head!r:.300} instead of {list(INDEX_COLUMNS)}"
        raise DatasetError(f"{table}: {wanted}; build the index again")
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        fault = _find_fault(row)
        if not fault and row[0] in seen:
            fault = f"{row[0]!r:.100} is there twice"
        if fault:
            raise DatasetError(f"{table}: row {number}: {fault}; build the index again")
        seen.add(row[0])
    frame = pd.DataFrame(rows, columns=list(INDEX_COLUMNS), dtype=str)
    return place_rows(frame, root).astype(COLUMN_TYPES)


def _find_fault(row: list[str]) -> str:
    """What is wrong with a row of the table; empty where nothing is."""
    if len(row) != len(INDEX_COLUMNS):
        return f"{len(row)} cells, not {len(INDEX_COLUMNS)}"
    cells = dict(zip(INDEX_COLUMNS, row, strict=True))
    wrong = [name for name, form in FORMS.items() if not form.fullmatch(cells[name])]
    wrong += [] if is_file_name(cells["category"]) else ["category"]
    wrong += [name for name in ("image_path", "mask_path") if leads_out(cells[name])]
    wrong += [] if cells["image_path"] else ["image_path"]
    return f"{wrong[0]} {cells[wrong[0]]!r:.100}" if wrong else ""


def leads_out(path: str) -> bool:
    """True of a POSIX path that does not stay in the folder that it is put into."""
    return path.startswith("/") or ".." in path.split("/") or "\0" in path


def place_rows(frame: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Rows of an index with paths that can be opened, by the dataset's root before them."""
    placed = {
        column: [(root / path).as_posix() if path else "" for path in frame[column]]
        for column in ("image_path", "mask_path")
    }
    return frame.assign(**placed)


def read_info(path: Path) -> dict[str, Any]:
    """The facts of the whole, as `Index.info` has them.

    Raises:
        DatasetError: the file is no table in JSON.
    """
    with naming(path, DatasetError):
        info = parse_json(path.read_bytes().decode("utf-8-sig"), finite=True)
    if not isinstance(info, dict):
        raise DatasetError(f"{path}: no table of facts; build the index again")
    return info
