"""Geometry of charts: numbers to places in a picture, which the templates write as SVG.

Colours, text and escaping are the templates' and the style sheet's, so that a chart follows the
page from light to dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from fuzzyclip.report.tables import Table

#: Units of a chart, pixels on a narrow screen; what is drawn on lies between the margins.
WIDTH, HEIGHT = 340.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 10.0, 40.0
#: A point that lies nearer than this to the last one is left out.
NEAR = 0.5

#: The chart's measures for the templates.
FRAME = {
    "width": WIDTH,
    "height": HEIGHT,
    "left": LEFT,
    "right": WIDTH - RIGHT,
    "top": TOP,
    "bottom": HEIGHT - BOTTOM,
}

Floats = NDArray[np.float64]
Range = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve; equal styles look alike, style 0 stands out.

    Attributes:
        name: for the legend; empty for a line that needs none.
        x: (n,).
        y: (n,).
        style: number of a colour and dash.
        faint: one of many behind the others.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    style: int = 0
    faint: bool = False


@dataclass(frozen=True)
class Mark:
    """A point, with what it means."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class DrawnLine:
    """A line as SVG draws it."""

    name: str
    d: str
    style: int
    faint: bool


@dataclass(frozen=True)
class Tick:
    """A place along an axis, and the number there."""

    place: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart for a template; `title` and `description` tell it to those who do not see it."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    paths: Sequence[DrawnLine]
    marks: Sequence[Mark] = ()
    table: Table | None = None


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`, drawn from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False
    ticks: Sequence[Tick] = field(default=())

    def place(self, values: ArrayLike) -> Floats:
        """Places of values; with a logarithmic axis they must be positive."""
        numbers, low, high = np.asarray(values, dtype=np.float64), self.low, self.high
        if self.log:
            numbers, low, high = np.log(numbers), float(np.log(low)), float(np.log(high))
        share = (numbers - low) / (high - low)
        return np.asarray(self.start + share * (self.stop - self.start))


def make_axis(span: Range, start: float, stop: float, *, log: bool = False) -> Axis:
    """An axis over a span, with round numbers on it."""
    low, high = span
    if not high > low:  # a line without height
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    locator = LogLocator(numticks=6) if log else MaxNLocator(5)
    values = np.asarray(locator.tick_values(low, high))
    inside = values[(values >= low * (1 - 1e-9)) & (values <= high * (1 + 1e-9))]
    axis = Axis(low, high, start, stop, log)
    ticks = [Tick(round(float(axis.place(v)), 1), f"{v + 0.0:g}") for v in inside.tolist()]
    return replace(axis, ticks=ticks)


def draw_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    description: str = "",
    x_range: Range | None = None,
    y_range: Range | None = None,
    log: bool = False,
    marks: Sequence[Mark] = (),
    table: Table | None = None,
) -> Chart:
    """A chart of at least one line; values that are not finite are left out.

    Axes without a range take that of the lines. With `log` the y axis is logarithmic and all y are
    positive. `table` holds the numbers behind the picture.
    """
    x = make_axis(x_range or _span(lines, "x"), LEFT, WIDTH - RIGHT)
    y = make_axis(y_range or _span(lines, "y"), HEIGHT - BOTTOM, TOP, log=log)
    paths = [
        DrawnLine(line.name, write_path(x.place(line.x), y.place(line.y)), line.style, line.faint)
        for line in lines
    ]
    placed = [Mark(mark.name, float(x.place(mark.x)), float(y.place(mark.y))) for mark in marks]
    return Chart(title, description, x_label, y_label, x.ticks, y.ticks, paths, placed, table)


def _span(lines: Sequence[Line], name: str) -> Range:
    values = np.concatenate([np.asarray(getattr(line, name), dtype=np.float64) for line in lines])
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    return float(finite.min()), float(finite.max())


def write_path(x: Floats, y: Floats) -> str:
    """SVG's path through points (n,); those that nobody could tell apart are left out."""
    points = np.stack([x, y], axis=1)  # (n, 2)
    points = points[np.isfinite(points).all(axis=1)]
    kept: list[tuple[float, float]] = []
    for number, (across, down) in enumerate(points.tolist()):
        last = number == len(points) - 1
        if kept and not last and max(abs(across - kept[-1][0]), abs(down - kept[-1][1])) < NEAR:
            continue
        kept.append((across, down))
    return "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in kept) if kept else ""


def step_before(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Vertices of a stair that holds each y (n,) from the x before it up to its own, (2n,)."""
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    before = np.concatenate([[0.0], across[:-1]])
    return np.stack([before, across], axis=1).ravel(), np.repeat(up, 2)
