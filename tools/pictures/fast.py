"""Time of an image against quality, by setting, from what `benchmarks/fast.py` measured."""

import io
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from fuzzyclip.utils.tables import read_table
from tools.pictures.methods import DPI, OUR_COLOUR

#: What was measured, a line a setting.
TABLE = "docs/data/fast.csv"
#: End of the names of columns that are drawn; what stands before it is the panel's title.
METRIC = ": pixel_ap"
#: What a setting changes, to the colour of its dots.
COLOURS = {
    "own": "#222222",
    "size": "#2563eb",
    "merged": "#0f766e",
    "int8": "#7c3aed",
    "together": "#b45309",
}
#: Where a dot's name stands, in points from it: right of and below it, or left of and above it.
RIGHT, LEFT = ((5, -3), "left", "top"), ((-5, 3), "right", "bottom")
#: In words, for the legend.
TITLES = {
    "own": "the tower's own",
    "size": "smaller input",
    "merged": "merged tokens",
    "int8": "int8",
    "together": "together",
}


def draw(root: Path) -> Image.Image:
    """The picture of the committed table."""
    figure = draw_picture(read_table(root / TABLE))
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=DPI)
        return Image.open(file).convert("RGB")


def draw_picture(table: pd.DataFrame) -> Figure:
    """A panel for each method and cut of the table, two in a row."""
    columns = [str(name) for name in table.columns if str(name).endswith(METRIC)]
    rows = -(-len(columns) // 2)
    figure = Figure(figsize=(13, 3.9 * rows))
    for number, column in enumerate(columns):
        down, across = divmod(number, 2)
        height = 0.76 / rows
        place = (0.04 + 0.5 * across, 1 - (down + 1) / rows + 0.14 / rows, 0.44, height)
        draw_panel(figure.add_axes(place), table, column)
    return figure


def draw_panel(axis: Axes, table: pd.DataFrame, column: str) -> None:
    """Settings as dots, a colour for what they change; a ring marks the declared one."""
    known = table.dropna(subset=[column, "time"])
    for kind, colour in COLOURS.items():
        dots = known[known["kind"] == kind].sort_values("time")
        line = "-" if kind in ("size", "merged") else "none"
        axis.plot(
            dots["time"], dots[column], linestyle=line, marker="o", markersize=4.5, color=colour,
            linewidth=0.8, label=TITLES[kind],
        )  # fmt: skip
        offset, across, down = LEFT if kind == "merged" else RIGHT
        for _, dot in dots.iterrows():
            axis.annotate(
                shorten(dot["variant"]), (dot["time"], dot[column]), xytext=offset,
                textcoords="offset points", fontsize=6, color=colour, ha=across, va=down,
            )  # fmt: skip
    declared = known[known["declared"] == 1]
    axis.scatter(
        declared["time"], declared[column], s=90, facecolors="none", edgecolors=OUR_COLOUR,
        label="--fast", zorder=3,
    )  # fmt: skip
    axis.set_xlim(0, 1.12 * known["time"].max())
    axis.margins(y=0.1)
    axis.axvline(0.5, color="#cbd5e1", linewidth=0.8, linestyle="--")
    axis.set_title(f"pixel AP, {column.removesuffix(METRIC)}", fontsize=9, loc="left")
    axis.set_xlabel("processor time an image, the tower's own setting = 1", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(color="#e5e7eb", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=6.5, frameon=False, loc="lower right")


def shorten(title: str) -> str:
    """A setting's name beside its dot: 364; 518, 50 %; 448, int8."""
    return title.replace(" px", "").removesuffix(" merged").replace(" merged,", ",")
