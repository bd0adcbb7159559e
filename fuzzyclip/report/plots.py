"""Points of the plots by which runs are compared: small tables, a file a plot.

A curve has `POINTS` points or so, whatever it was made from: mean curves of a dataset are read at
even places, losses are means over equal shares of the steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fuzzyclip.report.curves import GRID, Curve, average_curves

#: Points of a curve at most, but for the one at 0.
POINTS = 100
#: Of `GRID`, the places that are kept.
EVERY = (len(GRID) - 1) // POINTS
ROC = ("dataset", "of", "fpr", "tpr")
PRECISION_RECALL = ("dataset", "of", "recall", "precision")


def tabulate_curves(
    curves: Mapping[tuple[str, str], Sequence[Curve]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ROC and precision-recall, a line a point: columns `ROC` and `PRECISION_RECALL`, fractions.

    Args:
        curves: of each category, by dataset and by what is ranked, images or pixels. They are
            averaged at equal false positive rate and at equal recall, as the metrics are: the area
            under a mean curve is the mean of the categories' areas. Points lie at each percent.
    """
    roc, recalls = [], []
    for (dataset, ranked), categories in curves.items():
        if not categories:
            continue
        mean = average_curves(categories)
        known = {"dataset": dataset, "of": ranked}
        roc.append(pd.DataFrame(known | {"fpr": mean.fpr[::EVERY], "tpr": mean.tpr[::EVERY]}))
        kept = slice(EVERY - 1, None, EVERY)  # no precision at a recall of 0
        points = {"recall": mean.recall[kept], "precision": mean.precision[kept]}
        recalls.append(pd.DataFrame(known | points))
    return _join(roc, ROC), _join(recalls, PRECISION_RECALL)


def tabulate_losses(curves: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Training curves by auxiliary set: columns `auxiliary`, perhaps `cluster`, `step`, losses.

    A training of more than `POINTS` steps is cut into that many runs of steps; each line has the
    mean losses of one, at its last step. Clusters count from 1.
    """
    tables = []
    for auxiliary, curve in curves.items():
        owners = curve["cluster"] if "cluster" in curve else pd.Series(0, index=curve.index)
        for cluster, part in curve.groupby(owners, sort=False):
            shares = np.arange(len(part)) * min(POINTS, len(part)) // len(part)
            losses = part.drop(columns=["cluster", "epoch", "step"], errors="ignore")
            thin = losses.groupby(shares).mean()
            thin.insert(0, "step", part["step"].groupby(shares).last())
            if "cluster" in curve:
                thin.insert(0, "cluster", int(str(cluster)) + 1)
            thin.insert(0, "auxiliary", auxiliary)
            tables.append(thin)
    return pd.concat(tables, ignore_index=True)


def tabulate_partitions(partitions: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """CSP's score of each number of clusters: columns `auxiliary`, `k`, `score`, `chosen` (0 or 1).

    Args:
        partitions: by auxiliary set, `candidates` with `k` and `score`, and the chosen `k`.
    """
    lines = [
        {"auxiliary": auxiliary, "k": candidate["k"], "score": candidate["score"]}
        | {"chosen": int(candidate["k"] == partition["k"])}
        for auxiliary, partition in partitions.items()
        for candidate in partition["candidates"]
    ]
    return pd.DataFrame(lines)


def tabulate_datasets(means: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Metrics of each dataset, a line each: columns `dataset`, `metric`, `percent`.

    Args:
        means: one line a dataset, with columns `dataset` and `metrics`; what is not there is left
            out.
        metrics: in their order.
    """
    table = means.melt("dataset", list(metrics), "metric", "percent")
    return table.dropna(subset="percent").reset_index(drop=True)


def _join(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*columns])
