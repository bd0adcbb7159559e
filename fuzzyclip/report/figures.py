"""Strips of image, ground truth and anomaly map, as PNG for the report and for papers.

Shapes: n images, S image size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from fuzzyclip.report.heatmaps import CONTOUR, FAINTEST, HEAT
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
