"""Cost of every method against its quality, from what `benchmarks/methods.py` measured."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from fuzzyclip.method import OWN
from fuzzyclip.utils.tables import read_table

#: What was measured, a line a method.
TABLE = "docs/data/methods.csv"
DPI = 110
OUR_COLOUR = "#c2410c"
#: Group of `stages.method_tables` to the colour of its methods; ours has its own.
GROUPS = {
    "training-free": "#64748b",
    "trained": "#1d4ed8",
    "few-shot": "#15803d",
    "batch": "#a16207",
}
#: Metric of quality to its title.
QUALITY = {
    "pixel_ap": "pixel AP",
    "pixel_aupro_std": "exact pixel AUPRO",
    "image_auroc": "image AUROC",
}


def draw(root: Path) -> Image.Image:
    """The picture of the committed table."""
    figure = draw_picture(read_table(root / TABLE).set_index("variant"))
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=DPI)
        return Image.open(file).convert("RGB")


def draw_picture(table: pd.DataFrame) -> Figure:
    """Time an image against the quality in the first result set."""
    metrics = tuple(f": {metric}" for metric in QUALITY)
    columns = map(str, table.columns)
    first = next(column for column in columns if column.endswith(metrics)).split(": ")[0]
    figure = Figure(figsize=(13, 3.8))
    for number, (metric, title) in enumerate(QUALITY.items()):
        axis = figure.add_axes((0.03 + 0.325 * number, 0.22, 0.275, 0.68))
        draw_panel(axis, table, f"{first}: {metric}", f"{title}, {first}")
    dots = [
        Line2D([], [], marker="o", linestyle="", markersize=5, color=colour, label=group)
        for group, colour in GROUPS.items()
    ]
    figure.legend(handles=dots, loc="lower center", ncols=len(GROUPS), fontsize=7, frameon=False)
    return figure


def draw_panel(axis: Axes, table: pd.DataFrame, column: str, title: str) -> None:
    """Methods as dots; the size tells how much is trained."""
    known = table.dropna(subset=[column, "time"])
    sizes = 18 + 22 * np.log10(1 + known["parameters"] / 1000)
    colours = [OUR_COLOUR if row == OWN else GROUPS[group] for row, group in known["group"].items()]
    axis.scatter(known["time"], known[column], s=sizes, c=colours, alpha=0.85, linewidths=0)
    axis.set_xscale("log")
    axis.set_xlabel("time an image, bare image tower = 1 (log)", fontsize=8)
    axis.set_title(title, fontsize=9, loc="left")
    axis.tick_params(labelsize=7)
    axis.grid(color="#e5e7eb", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    low, high = known["time"].min(), known["time"].max()
    axis.set_xlim(low * 0.85, high * 2.6)
    ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50, 100) if low * 0.85 < tick < high * 2.6]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    place_labels(axis, known, column)


def place_labels(axis: Axes, known: pd.DataFrame, column: str) -> None:
    """Names to the right of the dots, moved down where they would lie on one another."""
    low, high = axis.get_ylim()
    step = (high - low) * 0.062
    order = known.sort_values([column, "time"], ascending=[False, True])
    places = order[column].tolist()
    for number in range(1, len(places)):
        places[number] = min(places[number], places[number - 1] - step)
    floor = low + step / 2
    for number in reversed(range(len(places))):
        places[number] = max(places[number], floor)
        floor = places[number] + step
    for y, (row, line) in zip(places, order.iterrows(), strict=True):
        colour = OUR_COLOUR if row == OWN else "#222222"
        axis.annotate(
            line["method"],
            (line["time"], line[column]),
            xytext=(known["time"].max() * 1.18, y),
            fontsize=6.5,
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#cbd5e1", "linewidth": 0.5},
        )
