"""Parts that every section of a page is made of: tables of text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fuzzyclip.report.tables import ABSENT


@dataclass(frozen=True)
class Table:
    """A table as it is shown; the first column names the lines.

    Attributes:
        caption: what it holds.
        head: a name each column.
        lines: cells of text.
        numbers: whether all columns but the first are numbers, set flush right.
    """

    caption: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    numbers: bool = True


def format_cell(value: object, digits: int = 1) -> str:
    """Text of a cell; an absent number is a dash."""
    if isinstance(value, float | np.floating):
        return ABSENT if np.isnan(value) else f"{value:.{digits}f}"
    return str(value)


def format_score(score: float) -> str:
    """An image score: log-odds with their sign, as people compare them."""
    return f"{score:+.4g}".replace("-", "−")


def tabulate(frame: pd.DataFrame, caption: str, *, numbers: bool = True, digits: int = 1) -> Table:
    """A data frame as a table."""
    lines = [[format_cell(cell, digits) for cell in line] for line in frame.to_numpy(object)]
    return Table(caption, [str(column) for column in frame.columns], lines, numbers)
