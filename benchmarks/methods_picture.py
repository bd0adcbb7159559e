"""Cost against quality as a picture: `python benchmarks/methods_picture.py FILE.csv FILE.png`.

Draws what benchmarks/methods.py wrote: two panels, time an image against pixel AUPRO and image
AUROC of the first result set, and the whole table below.
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
METRICS = {"pixel_aupro": "AUPRO", "pixel_ap": "pixel AP", "image_auroc": "AUROC"}
ROW, SIZE = 0.215, 7.5


def draw(table: pd.DataFrame) -> Figure:
    """The picture; `table` as benchmarks/methods.py writes it."""
    sets = list(dict.fromkeys(c.split(": ")[0] for c in table if c.split(": ")[-1] in METRICS))
    below = ROW * (len(table) + 2.6)
    figure = Figure(figsize=(10, 3.4 + below))
    height = 3.4 + below
    for number, (metric, title) in enumerate(PANELS.items()):
        box = (0.06 + 0.49 * number, (below + 0.55) / height, 0.43, 2.45 / height)
        draw_panel(figure.add_axes(box), table, f"{sets[0]}: {metric}", f"{title}, {sets[0]}")
    axis = figure.add_axes((0, 0, 1, below / height))
    axis.set(xlim=(0, 10), ylim=(below, 0))
    axis.set_axis_off()
    draw_table(axis, table, sets)
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


def draw_table(axis: Axes, table: pd.DataFrame, sets: list[str]) -> None:
    """All columns as text; an absent value is a dash."""
    large = "large: parameters" in table
    columns = [("trained", "parameters", "{:,.0f}"), ("time", "time", "{:.1f}")]
    columns += [("MiB", "memory_mib", "{:.0f}")]
    if large:
        columns += [("trained", "large: parameters", "{:,.0f}")]
    groups = [("sample's CLIP, 144 px", 3)] + ([("ViT-L/14", 1)] if large else [])
    for name in sets:
        columns += [(METRICS[one], f"{name}: {one}", "{:.1f}") for one in METRICS]
        groups.append((name, len(METRICS)))
    edges = np.linspace(2.05, 9.9, len(columns) + 1)[1:]
    start = 0
    for name, count in groups:
        middle = (edges[start + count - 1] + edges[start] - 0.5) / 2
        axis.text(middle, ROW, name, fontsize=SIZE, ha="center", va="center", fontweight="bold")
        start += count
    write(axis, 2 * ROW, ["method", "reads"], [0.1, 1.25], "left")
    write(axis, 2 * ROW, [head for head, _, _ in columns], edges, "right")
    axis.plot([0.1, 9.9], [2.5 * ROW] * 2, color="#c8c8c8", linewidth=0.8)
    for number, (row, line) in enumerate(table.iterrows()):
        y, colour = (3 + number) * ROW, OURS if row == "fuzzyclip" else "black"
        write(axis, y, [line["method"], line["kind"]], [0.1, 1.25], "left", colour)
        cells = [
            "-" if pd.isna(line.get(name)) else form.format(line[name]) for _, name, form in columns
        ]
        write(axis, y, cells, edges, "right", colour)


def write(
    axis: Axes, y: float, texts: list[str], places: list[float], side: str, colour: str = "black"
) -> None:
    for text, x in zip(texts, places, strict=True):
        axis.text(x, y, text, fontsize=SIZE, ha=side, va="center", color=colour)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    save_figure(draw(pd.read_csv(source).set_index("row")), target)
