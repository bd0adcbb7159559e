"""Geometry of charts: numbers to places in a picture, which the templates write as SVG.

Of any lines, and of CSP's clusters: category text features on two axes at every k.

Colours, text and escaping are the templates' and the style sheet's, so that a chart follows the
page from light to dark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from fuzzyclip.report.tables import Table, tabulate

#: Units of a chart, pixels on a narrow screen; what is drawn on lies between the margins.
WIDTH, HEIGHT = 340.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 10.0, 40.0
#: A point that lies nearer than this to the last one is left out.
NEAR = 0.5
#: Of a letter of a label, and how far from its point a label stands.
LETTER, LINE_HEIGHT, AWAY = 5.6, 11.0, 7.0

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
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Line:
    """A curve through n points, with its name for the legend, empty where it needs none.

    Equal styles look alike, style 0 stands out; a faint line is one of many behind the others.
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
class Tick:
    """A place along an axis, and the number there."""

    place: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart for a template; `title` and `description` tell it to those who do not see it.

    `paths` are the lines, each with its SVG path.
    """

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    paths: Sequence[tuple[Line, str]]
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
    ticks: Sequence[Tick] = ()

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
    paths = [(line, write_path(x.place(line.x), y.place(line.y))) for line in lines]
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


@dataclass(frozen=True)
class Dot:
    """A category: its place, its cluster from 0, and where its name begins."""

    name: str
    x: float
    y: float
    cluster: int
    text_x: float
    text_y: float


@dataclass(frozen=True)
class ClusterPicture:
    """A partition into k clusters."""

    k: int
    chosen: bool
    title: str
    description: str
    dots: Sequence[Dot]
    names: Table
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


@dataclass(frozen=True)
class ClusterPanel:
    """An auxiliary set: a picture for each k, and the scores."""

    auxiliary: str
    pictures: Sequence[ClusterPicture]
    scores: Chart


def build_clusters(auxiliary: str, outcome: Mapping[str, Any]) -> ClusterPanel:
    """Pictures of one auxiliary set.

    Args:
        auxiliary: its name.
        outcome: of CSP: `clusters` (chosen), `k`, `candidates` (`k`, `spread`, `penalty`, `score`,
            `clusters`) and `points`, name -> place on two axes.
    """
    partitions = [candidate["clusters"] for candidate in outcome["candidates"]]
    if outcome["clusters"] not in partitions:  # set by hand, or the paper's
        partitions.append(outcome["clusters"])
    pictures = [
        _draw_partition(auxiliary, clusters, outcome["points"], clusters == outcome["clusters"])
        for clusters in partitions
    ]
    return ClusterPanel(auxiliary, pictures, _draw_scores(auxiliary, outcome))


def _draw_scores(auxiliary: str, outcome: Mapping[str, Any]) -> Chart:
    """Eq. 4 by k; logarithmic, because the penalty grows with e^k."""
    frame = pd.DataFrame(outcome["candidates"])
    partitions = frame["clusters"]
    frame["names"] = ["; ".join(", ".join(group) for group in groups) for groups in partitions]
    table = tabulate(frame[["k", "spread", "penalty", "score", "names"]], "scores of k", digits=4)
    lines = [
        Line(name, frame["k"], frame[name].where(frame[name] > 0), style)
        for style, name in enumerate(("score", "spread", "penalty"))
    ]
    used = frame[[groups == outcome["clusters"] for groups in partitions]]
    return draw_chart(
        f"{auxiliary}: score of each k",
        lines[::-1],
        x_label="clusters k",
        y_label="score, its two parts",
        description=f"Score, squared distances and penalty by k. Used: {outcome['k']} cluster(s).",
        log=True,
        marks=[
            Mark(f"used: k = {k}", k, score) for k, score in zip(used.k, used.score, strict=True)
        ],
        table=table,
    )


def _draw_partition(
    auxiliary: str,
    clusters: Sequence[Sequence[str]],
    points: Mapping[str, Sequence[float]],
    chosen: bool,
) -> ClusterPicture:
    names = [name for group in clusters for name in group]
    owners = [number for number, group in enumerate(clusters) for _ in group]
    places = np.array([points[name] for name in names])  # (n, 2)
    low, high = places.min(axis=0), places.max(axis=0)
    pad = np.maximum(0.12 * (high - low), 1e-6)
    spans = [(float(a), float(b)) for a, b in zip(low - pad, high + pad, strict=True)]
    x_axis = make_axis(spans[0], LEFT, WIDTH - RIGHT)
    y_axis = make_axis(spans[1], HEIGHT - BOTTOM, TOP)
    xs, ys = x_axis.place(places[:, 0]).tolist(), y_axis.place(places[:, 1]).tolist()
    dots = [
        Dot(name, round(x, 1), round(y, 1), owner, round(tx, 1), round(ty, 1))
        for name, x, y, owner, (tx, ty) in zip(
            names, xs, ys, owners, place_labels(names, xs, ys), strict=True
        )
    ]
    groups = [[f"{number}", ", ".join(group)] for number, group in enumerate(clusters, start=1)]
    caption = f"names of each cluster, k = {len(clusters)}"
    return ClusterPicture(
        k=len(clusters),
        chosen=chosen,
        title=f"{auxiliary}: {len(clusters)} cluster(s)" + (", used" if chosen else ""),
        description=f"{len(names)} category names by their text features on the two main axes.",
        dots=dots,
        names=Table(caption, ["cluster", "names"], groups, False),
        x_ticks=x_axis.ticks,
        y_ticks=y_axis.ticks,
    )


def place_labels(
    names: Sequence[str], xs: Sequence[float], ys: Sequence[float]
) -> list[tuple[float, float]]:
    """The begin of each name, so that it covers neither another name nor a point, if it can.

    Tried are right, left, above and below of the point, then the same further away.
    """
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in zip(xs, ys, strict=True)]
    begins = []
    for number, (name, x, y) in enumerate(zip(names, xs, ys, strict=True)):
        width = LETTER * len(name)
        options = [
            place
            for far in (0.0, LINE_HEIGHT, 2 * LINE_HEIGHT)
            for place in (
                (x + AWAY, y + 4 + far),
                (x - AWAY - width, y + 4 - far),
                (x - width / 2, y - AWAY - far),
                (x - width / 2, y + AWAY + LINE_HEIGHT - 2 + far),
                (x + AWAY, y + 4 - far),
                (x - AWAY - width, y + 4 + far),
            )
        ]
        boxes = [(tx, ty - LINE_HEIGHT + 2, tx + width, ty + 2) for tx, ty in options]
        others = taken[:number] + taken[number + 1 :]
        costs = [_measure_overlap(box, others) for box in boxes]
        best = int(np.argmin(costs))
        taken.append(boxes[best])
        begins.append(options[best])
    return begins


def _measure_overlap(box: Box, others: Sequence[Box]) -> float:
    """Area shared with other boxes, and outside of the axes."""
    left, top, right, bottom = box
    area = 20 * (max(0.0, LEFT + 2 - left) + max(0.0, right - WIDTH + 2) + max(0.0, 2 - top))
    area += 20 * max(0.0, bottom - (HEIGHT - BOTTOM))
    for a, b, c, d in others:
        area += max(0.0, min(right, c) - max(left, a)) * max(0.0, min(bottom, d) - max(top, b))
    return area
