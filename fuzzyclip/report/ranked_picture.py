"""A comparison of methods as a picture: ours in black, what the paper prints below it in grey."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fuzzyclip.report.ranking import (
    LEVELS,
    check_values,
    describe_level,
    list_datasets,
    place_ranks,
    place_values,
    rank_methods,
    select_level,
)
from fuzzyclip.report.tables import ABSENT

#: Inches: a method's name, one number, a line of text, and the gap between datasets.
NAME, CELL, LINE, GAP = 1.15, 0.42, 0.155, 0.18
#: Source to colour and font size.
LOOK = {"ours": ("black", 7.5), "paper": ("#8a8a8a", 6.5)}
RULE, BAND = "#c8c8c8", "#f6f8fa"
#: Inches that a letter of a note takes at most, on average.
LETTER = 0.056
LEGEND = "Black: ours. Grey: as the paper prints it. Best bold, second underlined."


def draw_ranked_tables(
    values: pd.DataFrame, titles: Mapping[str, str], title: str, notes: Sequence[str] = ()
) -> Figure:
    """Both levels of a comparison; best bold, second underlined, average ranks at the right.

    Args:
        values: see `fuzzyclip.report.ranking.check_values`.
        titles: dataset to its title.
        title: of the picture.
        notes: lines below; broken where they are longer than the picture is wide.

    Raises:
        ValueError: nothing is there, no metric is of a level, or a value stands twice.
    """
    check_values(values)
    levels = [level for level in LEVELS if values["metric"].str.startswith(LEVELS[level]).any()]
    if not levels:
        raise ValueError(f"no metric begins with {' or '.join(LEVELS.values())}")
    tables = [{s: select_level(values, level, s) for s in LOOK} for level in levels]
    methods = len(tables[0]["ours"])
    width = max(_lay_out(table["ours"])[-1] for table in tables) + 0.75
    heights = [(2 * methods + 3.2) * LINE] * len(levels)
    letters = int((width - 0.2) / LETTER)
    lines = [line for note in (LEGEND, *notes) for line in textwrap.wrap(note, letters)]
    extra = 0.35 + LINE * (len(lines) + 0.5)
    figure = Figure(figsize=(width, sum(heights) + extra))
    top = sum(heights) + extra - 0.35
    figure.text(0.1 / width, 1 - 0.22 / (sum(heights) + extra), title, fontsize=10)
    for level, table, height in zip(levels, tables, heights, strict=True):
        box = (0, (top - height) / (sum(heights) + extra), 1, height / (sum(heights) + extra))
        axis = figure.add_axes(box)
        axis.set(xlim=(0, width), ylim=(height, 0))
        axis.set_axis_off()
        _draw_level(axis, table, titles, describe_level(values, level))
        top -= height
    for number, line in enumerate(reversed(lines)):
        y = (0.06 + LINE * number) / (sum(heights) + extra)
        figure.text(0.1 / width, y, line, fontsize=6.5, color="#555555")
    return figure


def _lay_out(table: pd.DataFrame) -> list[float]:
    """Left edges of the numbers in inches, one for each column, and that of the rank."""
    datasets, edges, x = table.columns.get_level_values(0), [], NAME
    for number, dataset in enumerate(datasets):
        if number and dataset != datasets[number - 1]:
            x += GAP
        edges.append(x)
        x += CELL
    return [*edges, x + GAP]


def _draw_level(
    axis: Axes, tables: Mapping[str, pd.DataFrame], titles: Mapping[str, str], heading: str
) -> None:
    """One level: a heading, the datasets, two lines a method."""
    ours = tables["ours"]
    edges = _lay_out(ours)
    right = axis.get_xlim()[1]
    axis.text(0.1, 0.8 * LINE, heading, fontsize=8, fontweight="bold", va="center")
    columns = list(ours.columns.get_level_values(0))
    for dataset in list_datasets(ours):
        places = [edge for edge, name in zip(edges, columns, strict=False) if name == dataset]
        middle = (places[0] + places[-1] + CELL) / 2
        text = titles.get(dataset, dataset)
        axis.text(middle, 2 * LINE, text, fontsize=7.5, ha="center", va="center")
    axis.text(edges[-1] + CELL / 2, 2 * LINE, "rank", fontsize=7.5, ha="center", va="center")
    axis.plot([0.1, right - 0.1], [2.6 * LINE] * 2, color=RULE, linewidth=0.8)
    for row, label in enumerate(ours.index):
        y = (2.9 + 2 * row) * LINE
        if row % 2:
            axis.fill_between([0.05, right - 0.05], y - 0.25 * LINE, y + 1.75 * LINE, color=BAND)
        axis.text(0.1, y + 0.75 * LINE, str(label), fontsize=7.5, va="center")
    for line, (source, table) in enumerate(tables.items()):
        ranks = rank_methods(table)
        cells = np.column_stack([table.to_numpy(), ranks.to_numpy()])
        marks = np.column_stack([place_values(table).to_numpy(), place_ranks(ranks).to_numpy()])
        for row, (numbers, places) in enumerate(zip(cells, marks, strict=True)):
            y = (2.9 + 2 * row + 0.35 + 0.85 * line) * LINE
            _draw_row(axis, y, edges, numbers, places, source)


def _draw_row(
    axis: Axes,
    y: float,
    edges: Sequence[float],
    numbers: np.ndarray,
    places: np.ndarray,
    source: str,
) -> None:
    """One method's numbers of one source; a dash where it has none of ours."""
    colour, size = LOOK[source]
    for edge, number, place in zip(edges, numbers, places, strict=True):
        if np.isnan(number) and source != "ours":
            continue
        text = ABSENT if np.isnan(number) else f"{number:.1f}"
        x = edge + CELL / 2
        weight = "bold" if place == 1 else "normal"
        axis.text(
            x, y, text, fontsize=size, color=colour, ha="center", va="center", fontweight=weight
        )
        if place == 2:
            half = 0.5 * size / 72 * 0.6 * len(text)
            below = y + 0.62 * size / 72
            axis.plot([x - half, x + half], [below, below], color=colour, linewidth=0.6)
