"""Curves of a page: ROC and precision-recall of images and pixels, and losses of the training.

Shapes: N images of a category, n points of a curve, K points of a mean curve.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fuzzyclip.evaluation.metrics import AUPRO_STEPS, find_threshold, rank
from fuzzyclip.evaluation.summaries import PixelSummaries
from fuzzyclip.method import OWN, get_title
from fuzzyclip.report.charts import Chart, Floats, Line, Mark, draw_chart, step_before
from fuzzyclip.report.tables import Table, format_cell, format_score, tabulate

#: Where mean curves are taken.
GRID = np.linspace(0, 1, 201)
#: Where the tables under the charts read the curves.
RATES = (0.01, 0.05, 0.1, 0.3)
RECALLS = (0.25, 0.5, 0.75, 0.9)
SHARE = (0.0, 1.0)
#: Columns of a training curve that are no loss.
PLACES = ("cluster", "epoch", "step")


@dataclass(frozen=True)
class Curve:
    """Both curves of one ranking, fractions, from the highest threshold down.

    Attributes:
        fpr: (n,) false positive rate, from 0 to 1.
        tpr: (n,) true positive rate.
        recall: (m,) at each threshold that reaches a positive, and `precision` there.
    """

    fpr: Floats
    tpr: Floats
    recall: Floats
    precision: Floats

    def trace_roc(self) -> tuple[Floats, Floats]:
        """The ROC curve's points, n to the right and n up."""
        return self.fpr, self.tpr

    def trace_steps(self) -> tuple[Floats, Floats]:
        """Vertices of the precision-recall stair."""
        return step_before(self.recall, self.precision)

    def read_tpr(self, fpr: ArrayLike) -> Floats:
        """True positive rate at false positive rates: the highest there, straight in between."""
        at = np.asarray(fpr, dtype=np.float64)
        after = np.searchsorted(self.fpr, at, side="right").clip(1, len(self.fpr) - 1)
        x0, x1 = self.fpr[after - 1], self.fpr[after]
        y0, y1 = self.tpr[after - 1], self.tpr[after]
        share = np.divide(at - x0, x1 - x0, out=np.ones_like(at), where=x1 > x0)
        return np.asarray(y0 + share.clip(0, 1) * (y1 - y0))

    def read_precision(self, recall: ArrayLike) -> Floats:
        """Precision at the highest threshold that reaches a recall."""
        at = np.asarray(recall, dtype=np.float64)
        reached = np.searchsorted(self.recall, at - 1e-12, side="left")
        return np.asarray(self.precision[reached.clip(max=len(self.precision) - 1)])


def trace_scores(scores: ArrayLike, labels: ArrayLike) -> Curve | None:
    """Exact curves of image scores (N,); None where one of the two classes is missing."""
    ranking = rank(scores, labels)
    if ranking is None:
        return None
    before = np.concatenate([[0.0], ranking.tp[:-1]])
    fp = np.stack([ranking.fp_above, ranking.fp], axis=1).ravel()  # ties slant, the rest is stairs
    tp = np.stack([before, ranking.tp], axis=1).ravel()
    return Curve(
        fpr=np.concatenate([[0.0], fp / ranking.negatives, [1.0]]),
        tpr=np.concatenate([[0.0], tp / ranking.positives, [1.0]]),
        recall=ranking.tp / ranking.positives,
        precision=ranking.tp / (ranking.tp + ranking.fp),
    )


def trace_pixels(summaries: PixelSummaries) -> Curve | None:
    """Curves of all pixels of a category at the thresholds that were kept; None without a class."""
    fp = summaries.negatives_above[:, :-AUPRO_STEPS].sum(axis=0, dtype=np.float64)
    tp = summaries.positives_above[:, :-AUPRO_STEPS].sum(axis=0, dtype=np.float64)
    if not fp[-1] or not tp[-1]:
        return None
    reached = tp > 0
    return Curve(
        fpr=fp / fp[-1],
        tpr=tp / tp[-1],
        recall=(tp / tp[-1])[reached],
        precision=(tp[reached] / (tp + fp)[reached]),
    )


def average_curves(curves: Sequence[Curve]) -> Curve:
    """Mean over categories at equal false positive rate and at equal recall, K points.

    The area under it is the mean of the areas, as the tables average them.
    """
    recall = GRID[1:]
    return Curve(
        fpr=GRID,
        tpr=np.mean([curve.read_tpr(GRID) for curve in curves], axis=0),
        recall=recall,
        precision=np.mean([curve.read_precision(recall) for curve in curves], axis=0),
    )


@dataclass(frozen=True)
class CurvePanel:
    """Charts that are shown together: `name` is a category, or empty for a dataset's mean."""

    dataset: str
    name: str
    charts: Sequence[Chart]
    note: str


def build_curves(
    dataset: str, scores: pd.DataFrame, variants: Sequence[str], pixels: Mapping[str, Curve]
) -> list[CurvePanel]:
    """Panels of a dataset: the mean of its categories, then each category.

    `scores` has a line an image and a column of scores a variant, `pixels` a curve over FuzzyCLIP's
    pixels for some categories; `variants` without scores are left out.
    """
    panels, images = [], {}
    for category, part in scores.groupby("category", sort=False):
        shown = [variant for variant in variants if variant in part]
        curves = {variant: trace_scores(part[variant], part["label"]) for variant in shown}
        known = {variant: curve for variant, curve in curves.items() if curve is not None}
        charts, note = [], "One of the two classes is missing: images have no curves."
        threshold = find_threshold(part[OWN], part["label"])
        if threshold is not None:
            images[str(category)] = known[OWN]
            charts += _draw_variants(known, part, threshold)
            note = (
                "The dot is FuzzyCLIP at the threshold of the largest F1, "
                f"{format_score(threshold)}. That threshold is chosen on these test images."
            )
        if str(category) in pixels:
            charts += _draw_pair("Pixels, FuzzyCLIP", {"FuzzyCLIP": pixels[str(category)]})
        panels.append(CurvePanel(dataset, str(category), charts, note))
    charts = [*_draw_mean("Images, FuzzyCLIP", images), *_draw_mean("Pixels, FuzzyCLIP", pixels)]
    note = (
        "Thin: each category. Thick: their mean at equal false positive rate, and at equal recall."
    )
    return [CurvePanel(dataset, "", charts, note), *panels] if charts else panels


def _draw_variants(
    curves: Mapping[str, Curve], part: pd.DataFrame, threshold: float
) -> list[Chart]:
    """Image curves of all variants, FuzzyCLIP's on top, with its F1-max threshold."""
    order = sorted(curves, key=lambda variant: variant != OWN)
    named = {get_title(variant): curves[variant] for variant in order}
    above, truth = part[OWN].to_numpy() >= threshold, part["label"].to_numpy() == 1
    fpr, tpr = float(above[~truth].mean()), float(above[truth].mean())
    name = "F1-max threshold (chosen on the test set)"
    marks = (Mark(name, fpr, tpr), Mark(name, tpr, float(truth[above].mean())))
    return _draw_pair("Images", named, marks)


def _draw_mean(title: str, curves: Mapping[str, Curve]) -> list[Chart]:
    """Each category thin behind the mean of all."""
    if not curves:
        return []
    return _draw_pair(title, {"mean": average_curves([*curves.values()])}, behind=curves)


def _draw_pair(
    title: str,
    curves: Mapping[str, Curve],
    marks: Sequence[Mark] = (),
    behind: Mapping[str, Curve] | None = None,
) -> list[Chart]:
    """ROC and precision-recall of the same curves, the first one on top; a mark for each chart."""
    thin = dict(behind or {})
    shown = {**curves, **thin}
    rates = ("false positive rate", "true positive rate", Curve.trace_roc, RATES, Curve.read_tpr)
    recalls = ("recall", "precision", Curve.trace_steps, RECALLS, Curve.read_precision)
    kinds = {"ROC": rates, "precision and recall": recalls}
    charts = []
    for number, (kind, (x_label, y_label, trace, places, read)) in enumerate(kinds.items()):
        lines = [Line("", *trace(curve), faint=True) for curve in thin.values()]
        named = [Line(name, *trace(curves[name]), style) for style, name in enumerate(curves)]
        what = f"{y_label} by {x_label}, {len(shown)} curve(s)"
        charts.append(
            draw_chart(
                f"{title}: {kind}",
                lines + named[::-1],
                x_label=x_label,
                y_label=y_label,
                description=f"Line chart of {what}. The numbers stand below.",
                x_range=SHARE,
                y_range=SHARE,
                marks=marks[number : number + 1],
                table=_read(shown, f"{y_label} at {x_label}", places, read),
            )
        )
    return charts


def _read(
    curves: Mapping[str, Curve],
    caption: str,
    places: Sequence[float],
    read: Callable[[Curve, ArrayLike], Floats],
) -> Table:
    """The curves' values at some places, in percent."""
    lines = [
        [name, *(format_cell(100 * float(value)) for value in read(curve, places))]
        for name, curve in curves.items()
    ]
    return Table(f"{caption} [%]", ["", *(f"{100 * place:g}\u00a0%" for place in places)], lines)


def build_training(curves: Mapping[str, pd.DataFrame]) -> list[Chart]:
    """Charts of training curves by title: columns `epoch`, `step`, losses, perhaps `cluster`."""
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
        description=f"Losses by step. Mean {losses[0]} of the first epoch {first:.3g}, of the last "
        f"{last:.3g}.",
        y_range=(0.0, float(part[losses].to_numpy().max())),
        table=tabulate(means.astype({"epoch": str}), "mean loss of each epoch", digits=4),
    )
