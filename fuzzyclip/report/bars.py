"""Bars of every category: a table whose cells hold a number and its bar."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.evaluation.rows import ROWS, TRAINED, list_rows
from fuzzyclip.report.parts import format_cell
from fuzzyclip.report.tables import LABELS, MEAN, add_means


@dataclass(frozen=True)
class Bar:
    """A number in percent as text, and the length of its bar, 0 to 100."""

    text: str
    length: float


@dataclass(frozen=True)
class Bars:
    """One metric on one dataset.

    Attributes:
        dataset: key of the panel's dataset.
        metric: the panel's metric.
        title: of the table.
        head: the rows of the results, FuzzyCLIP first.
        lines: category -> a bar for each row; the mean last.
    """

    dataset: str
    metric: str
    title: str
    head: Sequence[str]
    lines: Mapping[str, Sequence[Bar]]


def name_metric(metric: str) -> str:
    """A metric as people write it, with its level: "pixel AUPRO"."""
    return f"{metric.split('_')[0]} {LABELS[metric]}"


def name_row(row: str) -> str:
    """Title of a row of the results; a row of none of the tables goes by its own name."""
    shots = re.fullmatch(rf"{TRAINED}_(\d+)shot", row)
    return list_rows([*ROWS], [int(shots[1])] if shots else []).get(row, row)


def build_bars(key: str, title: str, categories: pd.DataFrame) -> list[Bars]:
    """A panel for each metric that a dataset has.

    Args:
        key: of the dataset.
        title: of the dataset.
        categories: per-category results, as `fuzzyclip.report.tables.add_means` takes them.
    """
    frame = add_means(categories)
    rows = sorted(dict.fromkeys(frame["row"]), key=lambda row: row != TRAINED)
    panels = []
    for metric in METRICS:
        wide = frame.pivot_table(metric, "category", "row", sort=False, dropna=False)
        if metric not in frame or frame[metric].isna().all():
            continue
        names = [*dict.fromkeys(categories["category"]), MEAN]
        values = wide.reindex(index=names, columns=rows)
        lines = {
            str(name): [
                Bar(format_cell(float(value)), 0.0 if pd.isna(value) else round(float(value), 2))
                for value in line
            ]
            for name, line in zip(values.index, values.to_numpy(), strict=True)
        }
        head = [name_row(row) for row in rows]
        panels.append(Bars(key, metric, f"{title}: {name_metric(metric)} [%]", head, lines))
    return panels
