"""Cost against quality as a picture: `python benchmarks/methods_picture.py FILE.csv FILE.png`.

Two panels of what benchmarks/methods.py wrote: time an image against pixel AUPRO and image AUROC of
the first result set.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fuzzyclip.report.figures import save_figure  # noqa: E402

OURS, OTHER = "#c2410c", "#4b6584"
PANELS = {"pixel_aupro": "pixel AUPRO", "image_auroc": "image AUROC"}


def draw(table: pd.DataFrame) -> Figure:
    """The picture; `table` as benchmarks/methods.py writes it."""
    first = next(column for column in table if column.endswith(": pixel_aupro")).split(": ")[0]
    figure = Figure(figsize=(10, 3.4))
    for number, (metric, title) in enumerate(PANELS.items()):
        axis = figure.add_axes((0.06 + 0.49 * number, 0.16, 0.43, 0.72))
        draw_panel(axis, table, f"{first}: {metric}", f"{title}, {first}")
    return figure


def draw_panel(axis: Axes, table: pd.DataFrame, column: str, title: str) -> None:
    """Methods as dots; the size tells how much is trained."""
    known = table.dropna(subset=[column, "time"])
    sizes = 18 + 22 * np.log10(1 + known["parameters"] / 1000)
    colours = [OURS if row == "fuzzyclip" else OTHER for row in known.index]
    axis.scatter(known["time"], known[column], s=sizes, c=colours, alpha=0.85, linewidths=0)
    axis.set_xscale("log")
    axis.set_xlabel("time an image, bare image tower = 1 (log)", fontsize=8)
    axis.set_title(title, fontsize=9, loc="left")
    axis.tick_params(labelsize=7)
    axis.grid(color="#e5e7eb", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    low, high = known["time"].min(), known["time"].max()
    axis.set_xlim(low * 0.85, high * 2.2)
    ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50, 100) if low * 0.85 < tick < high * 2.2]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    place_labels(axis, known, column)


def place_labels(axis: Axes, known: pd.DataFrame, column: str) -> None:
    """Names to the right of the dots, moved down where they would lie on one another."""
    low, high = axis.get_ylim()
    step = (high - low) * 0.062
    order = known.sort_values(column, ascending=False)
    places = order[column].tolist()
    for number in range(1, len(places)):
        places[number] = min(places[number], places[number - 1] - step)
    floor = low + step / 2
    for number in reversed(range(len(places))):
        places[number] = max(places[number], floor)
        floor = places[number] + step
    for y, (row, line) in zip(places, order.iterrows(), strict=True):
        colour = OURS if row == "fuzzyclip" else "#222222"
        axis.annotate(
            line["method"],
            (line["time"], line[column]),
            xytext=(known["time"].max() * 1.18, y),
            fontsize=6.5,
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#cbd5e1", "linewidth": 0.5},
        )


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    save_figure(draw(pd.read_csv(source).set_index("variant")), target)
