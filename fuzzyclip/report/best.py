"""Bold for the best value of those that a page sets side by side, whoever has it.

Values are compared as they are printed: those that look equal are equal, and all of them are bold.
Every metric here is the better the higher it is.
"""

import re
from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup, escape

from fuzzyclip.report.tables import GAIN, PRINTED, Table, format_cell

#: A printed value. Differences, which have a sign in front, are not compared.
VALUE = re.compile(r"-?\d+(?:\.\d+)?")
#: Columns that name the lines of tables in the paper's layout.
NAMES = ("level", "dataset")


def mark_best(cells: Sequence[str]) -> list[Markup]:
    """Cells as HTML with the highest in bold, that of each place where cells are tuples.

    A cell is a number, a dash or a tuple of such; what else it may be stays as it is. A value that
    stands alone is the best of nothing, and not bold.
    """
    split = [_split(cell) for cell in cells]
    places = range(max(map(len, split), default=0))
    best = [_find_best([parts[place] for parts in split if place < len(parts)]) for place in places]
    marked = []
    for cell, parts in zip(cells, split, strict=True):
        texts = [
            Markup("<b>{}</b>").format(part) if part == best[place] else escape(part)
            for place, part in enumerate(parts)
        ]
        joined = Markup(", ").join(texts)
        marked.append(Markup("({})").format(joined) if _is_tuple(cell) else joined)
    return marked


def mark_table(frame: pd.DataFrame, caption: str) -> Table:
    """A table of results as text, the best in bold.

    Where variants stand below one another, under `variant`, they are compared in each column,
    without the line of gains; else in each line, without what names it and what the paper prints.
    """
    lines = [[format_cell(cell) for cell in line] for line in frame.to_numpy(object)]
    head = [str(column) for column in frame.columns]
    if head[:1] == ["variant"]:
        rows = [row for row, line in enumerate(lines) if line[0] != GAIN]
        for column in range(1, len(head)):
            _replace(lines, [(row, column) for row in rows])
        return Table(caption, head, lines)
    compared = [place for place, name in enumerate(head) if name not in (*NAMES, PRINTED)]
    for row in range(len(lines)):
        _replace(lines, [(row, column) for column in compared])
    return Table(caption, head, lines, numbers=False)


def _replace(lines: list[list[str]], places: Sequence[tuple[int, int]]) -> None:
    """Mark the best of some cells, in place."""
    marked = mark_best([lines[row][column] for row, column in places])
    for (row, column), cell in zip(places, marked, strict=True):
        lines[row][column] = cell


def _is_tuple(cell: str) -> bool:
    return cell.startswith("(") and cell.endswith(")")


def _split(cell: str) -> list[str]:
    """The values of a tuple, or the cell alone."""
    return cell[1:-1].split(", ") if _is_tuple(cell) else [cell]


def _find_best(texts: Sequence[str]) -> str | None:
    """The highest of some values as it is printed; none where fewer than two are values."""
    values = [text for text in texts if VALUE.fullmatch(text)]
    return max(values, key=float) if len(values) > 1 else None
