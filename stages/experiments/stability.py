"""Figure 1 in numbers: how early curves settle, how much they move, and what a seed changes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fuzzyclip.report.tables import ABSENT, name_metric

#: Points of a metric that a settled curve stays within of its end.
SETTLED = 2.0
#: The meaning of the columns of `summarise_stability`.
STABILITY_NOTES = (
    f"settled: the first evaluated epoch from which on the curve stays within {SETTLED:g} points "
    "of its end.",
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
            curves = [
                curve.set_index("epoch")[metric].sort_index() for _, curve in rows.groupby("seed")
            ]
            last = [float(curve.iloc[-1]) for curve in curves]
            first = curves[0].index[0]
            settled = [find_settled(curve) for curve in curves]
            along = [float(curve[curve.index >= 1].std(ddof=0)) for curve in curves]
            highest = [curve.max() for curve in curves]
            peaks = [float(curve.index[int(curve.argmax())]) for curve in curves]
            over = f"{np.std(last, ddof=1):.1f}" if len(last) > 1 else ABSENT
            lines.append(
                {
                    "prompt": label,
                    "metric": name_metric(metric),
                    f"epoch {first:g}": f"{np.mean([curve.iloc[0] for curve in curves]):.1f}",
                    "highest": f"{np.mean(highest):.1f}",
                    "at epoch": ", ".join(f"{epoch:g}" for epoch in peaks),
                    "last": f"{np.mean(last):.1f}",
                    "settled": ", ".join(f"{epoch:g}" for epoch in settled),
                    "spread along the curve": f"{np.mean(along):.1f}",
                    "spread over seeds": over,
                }
            )
    return pd.DataFrame(lines)


def find_settled(curve: "pd.Series[float]") -> float:
    """The first epoch from which on a curve by epoch stays within `SETTLED` of its end."""
    outside = np.flatnonzero((curve - curve.iloc[-1]).abs() > SETTLED)
    return float(curve.index[outside[-1] + 1 if len(outside) else 0])
