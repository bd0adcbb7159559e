"""Figure 1 in numbers: how early curves settle, how much they move, and what a seed changes."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from fuzzyclip.report.tables import ABSENT, format_cell, name_metric

#: Points of a metric that a settled curve stays within of its end.
SETTLED = 2.0
#: The meaning of the columns of `summarise_stability`.
STABILITY_NOTES = (
    f"settled: the first evaluated epoch from which on the curve stays within {SETTLED:g} points "
    "of its end; an undefined value is outside.",
    "spread along the curve: standard deviation of the values from epoch 1 on. It and the values "
    "are of each seed's curve, then the mean over seeds; epochs are those of each seed.",
    "spread over seeds: sample standard deviation of the last values (n - 1); it needs --seeds.",
)


def summarise_stability(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A line a kind of prompt and metric, percent and points.

    Args:
        frame: a line an evaluated epoch and seed: `label`, `epoch`, `seed`, and the metrics.
        metrics: those to sum up.
    """
    lines = []
    for label, rows in frame.groupby("label", sort=False):
        for metric in metrics:
            curves = rows.pivot_table(metric, "epoch", "seed", dropna=False)  # epochs go up
            first, last = curves.iloc[0], curves.iloc[-1]
            peaks = curves.fillna(-np.inf).idxmax().where(curves.notna().any())
            along = curves[curves.index >= 1].std(ddof=0)
            lines.append(
                {
                    "prompt": label,
                    "metric": name_metric(metric),
                    f"epoch {first.name:g}": format_cell(first.mean(skipna=False)),
                    "highest": format_cell(curves.max().mean()),
                    "at epoch": _list_epochs(peaks),
                    "last": format_cell(last.mean(skipna=False)),
                    "settled": _list_epochs(curves.apply(find_settled).astype(float)),
                    "spread along the curve": format_cell(along.mean()),
                    "spread over seeds": format_cell(last.std(skipna=False)),
                }
            )
    return pd.DataFrame(lines)


def find_settled(curve: "pd.Series[float]") -> float:
    """The first epoch from which on a curve by epoch stays within `SETTLED` of its end.

    An undefined value is outside; not a number where the end is undefined.
    """
    outside = np.flatnonzero(~((curve - curve.iloc[-1]).abs() <= SETTLED))
    first = outside[-1] + 1 if len(outside) else 0
    return float(curve.index[first]) if first < len(curve) else math.nan


def _list_epochs(epochs: Iterable[float]) -> str:
    return ", ".join(ABSENT if math.isnan(epoch) else f"{epoch:g}" for epoch in epochs)
