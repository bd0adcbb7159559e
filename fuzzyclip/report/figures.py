"""Pictures of results: tables, heatmap overlays and training curves.

Shapes: n images, S image size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from fuzzyclip.report.colours import CONTOUR, FAINTEST, HEAT
from fuzzyclip.utils.files import replace_file

DPI = 110
#: Inches: of one picture and the space before it, of the space, of a picture's title, of a band of
#: image, ground truth and map, of the figure's title, and of the colour bar.
CELL, GAP, TITLE = 1.35, 0.06, 0.36
BAND, HEAD, BAR = 3 * CELL + TITLE, 0.4, 0.95


@dataclass(frozen=True)
class Example:
    """One image (S, S, 3) with its ground truth and its anomaly map, both (S, S)."""

    title: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    anomaly_map: NDArray[np.floating]


def save_figure(figure: Figure, path: Path) -> None:
    """PNG without dates, so that equal pictures are equal files."""
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def draw_heatmaps(
    examples: Sequence[Example],
    title: str,
    columns: int = 10,
    truth_last: bool = False,
) -> Figure:
    """Image, ground truth and map under one another, all maps on one fixed colour scale.

    The scale ends at 1, the most a probability can be, for every picture of every run: a normal
    image stays dark. It is logarithmic, because a softmax over cosines times 100 spans many
    decades.

    Args:
        examples: what to show, left to right.
        title: of the figure.
        columns: pictures a band.
        truth_last: the ground truth under the map, as in the paper's strips, not above it.
    """
    bands = [examples[i : i + columns] for i in range(0, len(examples), columns)]
    width = CELL * min(columns, len(examples)) + BAR
    height = BAND * len(bands) + HEAD
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, fontsize=10, y=1 - 0.12 / height, va="top")

    def place(column: float, top: float, wide: float, high: float) -> Axes:
        """Axes at inches from the left and the top. A layout engine takes longer than drawing."""
        return figure.add_axes(
            (column / width, 1 - (top + high) / height, wide / width, high / height)
        )

    shown = None
    for band, chosen in enumerate(bands):
        for column, example in enumerate(chosen):
            tops = [HEAD + BAND * band + TITLE + CELL * row for row in range(3)]
            panels = [place(CELL * column + GAP, top, CELL - GAP, CELL - GAP) for top in tops]
            order = (0, 2, 1) if truth_last else (0, 1, 2)
            shown = _draw_example([panels[i] for i in order], example)
    if shown is not None:
        long = 0.6 * (height - HEAD)
        axes = place(width - BAR + 0.15, HEAD + (height - HEAD - long) / 2, 0.12, long)
        bar = figure.colorbar(shown, cax=axes)
        bar.set_label("abnormal probability, mean over blocks", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def _draw_example(panels: Sequence[Axes], example: Example) -> AxesImage:
    for panel in panels:
        panel.set_axis_off()
    panels[0].imshow(example.image)
    panels[0].set_title(example.title, fontsize=6.5)
    panels[1].imshow(example.mask, cmap="gray", vmin=0, vmax=1)
    shown: AxesImage = panels[2].imshow(
        np.maximum(example.anomaly_map, FAINTEST),
        cmap=HEAT,
        norm=LogNorm(FAINTEST, 1),
    )
    if example.mask.any():
        panels[2].contour(example.mask, levels=[0.5], colors=CONTOUR, linewidths=0.7)
    return shown


def draw_table(frame: pd.DataFrame, title: str, notes: Sequence[str] = ()) -> Figure:
    """A table of text cells as a picture; columns as wide as their longest line."""
    cells = frame.astype(str).to_numpy().tolist()
    head = [_wrap(str(column)) for column in frame.columns]
    widths = [
        max(
            len(line) for text in (head[i], *(row[i] for row in cells)) for line in text.split("\n")
        )
        for i in range(len(head))
    ]
    height = 0.27 * len(cells) + 1.0 + 0.19 * len(notes)
    figure = Figure(figsize=(0.088 * sum(widths) + 0.6, height), layout="constrained")
    axis: Axes = figure.subplots()
    axis.set_axis_off()
    axis.set_title(title, fontsize=10, loc="left")
    table = axis.table(
        cellText=cells,
        colLabels=head,
        colWidths=[width / sum(widths) for width in widths],
        loc="upper left",
        cellLoc="center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.scale(1, 1.35)
    for (row, _), cell in table.get_celld().items():
        cell.set_edgecolor("#c8c8c8")
        if row == 0:
            cell.set_height(cell.get_height() * 1.9)
            cell.set_facecolor("#eef2f6")
    for number, note in enumerate(reversed(notes)):
        figure.text(0.01, 0.01 + 0.16 / height * number, note, fontsize=7, color="#555555")
    return figure


def _wrap(text: str, width: int = 20) -> str:
    """Break a heading at spaces."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def draw_bars(means: pd.DataFrame, rows: Sequence[str], panels: dict[str, str]) -> Figure:
    """Each row's metric by dataset, a panel a metric.

    Args:
        means: columns `dataset`, `row` and the metrics, percent.
        rows: rows to draw, in order.
        panels: metric to panel title.
    """
    datasets = list(dict.fromkeys(means["dataset"]))
    figure = Figure(figsize=(10, 2.5 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    colours = mpl.colormaps["viridis"](np.linspace(0.85, 0.15, len(rows)))
    places, width = np.arange(len(datasets)), 0.8 / len(rows)
    for axis, (metric, title) in zip(axes, panels.items(), strict=True):
        for number, (row, colour) in enumerate(zip(rows, colours, strict=True)):
            heights = means[means["row"] == row].set_index("dataset")[metric].reindex(datasets)
            offset = (number - (len(rows) - 1) / 2) * width
            axis.bar(places + offset, heights, width, label=row, color=colour)
        axis.set_ylabel(f"{title} [%]", fontsize=8)
        axis.set_xticks(places, datasets, fontsize=8)
        axis.tick_params(axis="y", labelsize=7)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=7, ncols=len(rows), loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure


def draw_curves(curves: dict[str, pd.DataFrame]) -> Figure:
    """Training curves, a panel each: losses by step; clusters as separate lines."""
    figure = Figure(figsize=(4 * len(curves), 2.8), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        losses = [column for column in curve if column not in ("cluster", "epoch", "step")]
        clusters = curve["cluster"] if "cluster" in curve else pd.Series(0, index=curve.index)
        several = bool((clusters > 0).any())
        for cluster, part in curve.groupby(clusters):
            for loss in losses:
                label = f"{loss} (cluster {cluster})" if several else loss
                axis.plot(part["step"], part[loss], label=label, linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6)
        axis.grid(alpha=0.3)
    return figure
