"""CSP's clusters: category text features on two axes at every k, and the scores of k."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fuzzyclip.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Line,
    Mark,
    Tick,
    draw_chart,
    make_axis,
)
from fuzzyclip.report.tables import Table, tabulate

#: Of a letter of a label, and how far from its point a label stands.
LETTER, LINE, AWAY = 5.6, 11.0, 7.0

Box = tuple[float, float, float, float]


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
    groups: Sequence[Sequence[str]]
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
            `clusters`) and `points`, name -> place on two axes (`method.csp.project_points`).
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
    shown = [("score", 0), ("spread", 1), ("penalty", 2)]
    lines = [
        Line(name, frame["k"], frame[name].where(frame[name] > 0), style) for name, style in shown
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
    places = np.array([points[name] for group in clusters for name in group])  # (n, 2)
    low, high = places.min(axis=0), places.max(axis=0)
    pad = np.maximum(0.12 * (high - low), 1e-6)
    spans = [(float(a), float(b)) for a, b in zip(low - pad, high + pad, strict=True)]
    x_axis = make_axis(spans[0], LEFT, WIDTH - RIGHT)
    y_axis = make_axis(spans[1], HEIGHT - BOTTOM, TOP)
    owners = [number for number, group in enumerate(clusters) for _ in group]
    names = [name for group in clusters for name in group]
    xs, ys = x_axis.place(places[:, 0]).tolist(), y_axis.place(places[:, 1]).tolist()
    texts = place_labels(names, xs, ys)
    dots = [
        Dot(name, round(x, 1), round(y, 1), owner, round(tx, 1), round(ty, 1))
        for name, x, y, owner, (tx, ty) in zip(names, xs, ys, owners, texts, strict=True)
    ]
    return ClusterPicture(
        k=len(clusters),
        chosen=chosen,
        title=f"{auxiliary}: {len(clusters)} cluster(s)" + (", used" if chosen else ""),
        description=f"{len(names)} category names by their text features on the two main axes.",
        dots=dots,
        groups=clusters,
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
            for far in (0.0, LINE, 2 * LINE)
            for place in (
                (x + AWAY, y + 4 + far),
                (x - AWAY - width, y + 4 - far),
                (x - width / 2, y - AWAY - far),
                (x - width / 2, y + AWAY + LINE - 2 + far),
                (x + AWAY, y + 4 - far),
                (x - AWAY - width, y + 4 + far),
            )
        ]
        boxes = [(tx, ty - LINE + 2, tx + width, ty + 2) for tx, ty in options]
        others = taken[:number] + taken[number + 1 :]
        costs = [_measure_overlap(box, others) for box in boxes]
        best = int(np.argmin(costs))
        taken.append(boxes[best])
        begins.append(options[best])
    return begins


def _measure_overlap(box: Box, others: Sequence[Box]) -> float:
    """Area shared with other boxes, and outside of the picture."""
    left, top, right, bottom = box
    area = 20 * (max(0.0, 2 - left) + max(0.0, right - WIDTH + 2) + max(0.0, 2 - top))
    area += 20 * max(0.0, bottom - (HEIGHT - BOTTOM))
    for a, b, c, d in others:
        area += max(0.0, min(right, c) - max(left, a)) * max(0.0, min(bottom, d) - max(top, b))
    return area


def describe_groups(picture: ClusterPicture) -> Table:
    """The clusters as text."""
    lines = [
        [str(number), ", ".join(group)] for number, group in enumerate(picture.groups, start=1)
    ]
    return Table(f"names of each cluster, k = {picture.k}", ["cluster", "names"], lines, False)
