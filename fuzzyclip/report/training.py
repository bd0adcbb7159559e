"""Charts of training: losses by step, one chart a cluster."""

from collections.abc import Mapping

import pandas as pd

from fuzzyclip.report.charts import Chart, Line, draw_chart
from fuzzyclip.report.parts import tabulate

#: Columns of a training curve that are no loss.
PLACES = ("cluster", "epoch", "step")


def build_training(curves: Mapping[str, pd.DataFrame]) -> list[Chart]:
    """Charts of training curves.

    Args:
        curves: title -> columns `epoch`, `step`, the losses, and `cluster` (from 0) where there
            are several sets of layers.
    """
    charts = []
    for title, curve in curves.items():
        owners = curve["cluster"] if "cluster" in curve else pd.Series(0, index=curve.index)
        several = len(owners.unique()) > 1
        for cluster, part in curve.groupby(owners):
            name = f"{title}, cluster {int(str(cluster)) + 1}" if several else title
            charts.append(_draw_losses(name, part))
    return charts


def _draw_losses(title: str, part: pd.DataFrame) -> Chart:
    losses = [str(column) for column in part if column not in PLACES]
    means = part.groupby("epoch")[losses].mean().reset_index()
    first, last = means[losses[0]].iloc[0], means[losses[0]].iloc[-1]
    return draw_chart(
        title,
        [Line(loss, part["step"], part[loss], style) for style, loss in enumerate(losses)][::-1],
        x_label="step",
        y_label="loss",
        said=f"Losses by step. Mean {losses[0]} of the first epoch {first:.3g}, of the last "
        f"{last:.3g}.",
        y_range=(0.0, float(part[losses].to_numpy().max())),
        table=tabulate(means.astype({"epoch": str}), "mean loss of each epoch", digits=4),
    )
