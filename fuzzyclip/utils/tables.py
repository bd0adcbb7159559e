"""Our own tables as CSV, read back as they were written: names are text, all else is numbers.

A category may be called `NA`, `null`, `1e5`, `001` or `True`, and a file have a line end in its
name. pandas alone takes the first two for absent, the others for numbers, and a line end for one of
the table's; so no other code writes or reads a table of ours.
"""

import codecs
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from fuzzyclip.utils.cells import choose_quoting, escape_cell, restore_cell
from fuzzyclip.utils.files import write_text

#: Columns that hold names or words, in any of our tables.
TEXT = frozenset(
    {"dataset", "title", "protocol", "mask pixels", "verified", "licence", "level", "of"}
    | {"variant", "method", "group", "kind", "metric", "auxiliary", "prompt"}
    | {"image_path", "mask_path", "category", "split", "defect", "sha256", "mask_sha256"}
)


def write_csv(path: Path, frame: pd.DataFrame, numbers: str = "%.4f") -> None:
    """A table without its index; fractions in the format `numbers`, empty where undefined.

    A text that a spreadsheet would compute has an apostrophe before it.

    Raises:
        ValueError: a number is infinite; names its column and row.
    """
    for name, column in frame.select_dtypes("number").items():
        for row in column.index[column.abs() == math.inf]:
            raise ValueError(f"{path} is not written: {name} is infinite in row {row}")
    write_text(path, format_csv(_map_texts(frame, escape_cell), numbers))


def format_csv(frame: pd.DataFrame, numbers: str | None = None) -> str:
    """A table without its index as CSV with "\\n" line ends, quoted where it must be."""
    columns = (column for _, column in frame.select_dtypes(exclude="number").items())
    quoting = choose_quoting(str(cell) for column in columns for cell in column)
    return frame.to_csv(index=False, float_format=numbers, lineterminator="\n", quoting=quoting)


def read_table(source: Path | str, renamed: dict[str, str] | None = None) -> pd.DataFrame:
    """A table of ours from a CSV file or its text: columns of `TEXT` as they stand, else numbers.

    An empty cell is an empty text, or a number that is not there (NaN). Line ends and a byte order
    mark, as a spreadsheet leaves them, change nothing.

    Args:
        renamed: names of columns in results of old to today's.

    Raises:
        ValueError: it is no table, or a cell among numbers is none; names the file and the column.
        FileNotFoundError: the file is not there.
        pandas.errors.EmptyDataError: it is empty, without a line of names.
    """
    name = source if isinstance(source, Path) else "this text"
    content = _read(source)
    names = [str(column) for column in _parse(content, name, nrows=0).columns]
    today = {column: (renamed or {}).get(column, column) for column in names}
    text = {column: str for column in names if today[column] in TEXT}
    absent = {column: [""] for column in names if column not in text}
    frame = _parse(content, name, dtype=text, na_values=absent)
    for column in absent:
        if frame.empty:
            frame[column] = frame[column].astype("float64")
        elif is_bool_dtype(frame[column]) or not is_numeric_dtype(frame[column]):
            raise ValueError(
                f"{name}: the column {column} holds {_find_text(frame[column])!r}, which is no "
                "number; it is not as it was written, make it anew"
            )
    return _map_texts(frame, restore_cell).rename(columns=today)


def read_text_table(source: Path | str, *, ours: bool = False) -> pd.DataFrame:
    """A CSV file, or its text, cell by cell as it stands; an empty one is an empty text.

    Args:
        ours: whether `write_csv` wrote it: the apostrophes that it put before formulas go.

    Raises:
        ValueError: it is no table; names the file.
        FileNotFoundError: the file is not there.
        pandas.errors.EmptyDataError: it is empty, without a line of names.
    """
    name = source if isinstance(source, Path) else "this text"
    frame = _parse(_read(source), name, dtype=str)
    return _map_texts(frame, restore_cell) if ours else frame


def _map_texts(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with its texts changed, and nothing else of it."""
    texts = frame.select_dtypes(exclude=["number", "bool"])
    changed = {
        name: column.map(lambda cell: change(cell) if isinstance(cell, str) else cell)
        for name, column in texts.items()
    }
    return frame.assign(**{str(name): column for name, column in changed.items()})


def _read(source: Path | str) -> bytes:
    """UTF-8 without a byte order mark."""
    content = source.read_bytes() if isinstance(source, Path) else source.encode()
    return content.removeprefix(codecs.BOM_UTF8)


def _parse(content: bytes, name: Path | str, **options: Any) -> pd.DataFrame:
    """As pandas reads it, but nothing is taken for absent; a ValueError names the file."""
    try:
        frame: pd.DataFrame = pd.read_csv(
            io.BytesIO(content), keep_default_na=False, encoding="utf-8", **options
        )
    except pd.errors.EmptyDataError:
        raise
    except ValueError as error:  # pandas' own among them, and text that is no UTF-8
        raise ValueError(f"{name}: this is no table ({error}); make or fetch it anew") from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas makes names of rows of what is too much
        raise ValueError(
            f"{name}: this is no table (a line has more cells than names); make it anew"
        )
    return frame


def _find_text(column: "pd.Series[str]") -> str:
    """The first cell that is no number."""
    numbers = pd.to_numeric(column.astype(str), errors="coerce")
    unread = column[numbers.isna() & column.notna()]
    return str(unread.iloc[0] if len(unread) else column.iloc[0])
