"""ROC and precision-recall curves from image scores, and from the counts kept of pixels.

Shapes: N images of a category, n points of a curve, K points of a mean curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fuzzyclip.evaluation.metrics import AUPRO_STEPS, rank
from fuzzyclip.evaluation.summaries import PixelSummaries

Floats = NDArray[np.float64]
#: Where mean curves are taken.
GRID = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Curve:
    """Both curves of one ranking, fractions, from the highest threshold down.

    Attributes:
        fpr: (n,) false positive rate, from 0 to 1.
        tpr: (n,) true positive rate.
        recall: (m,) at each threshold that reaches a positive.
        precision: (m,) there.
    """

    fpr: Floats
    tpr: Floats
    recall: Floats
    precision: Floats

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
        tpr=np.mean([one.read_tpr(GRID) for one in curves], axis=0),
        recall=recall,
        precision=np.mean([one.read_precision(recall) for one in curves], axis=0),
    )
