"""Metrics of curves that are known at some thresholds only: an estimate between certain bounds.

Shapes: R weightings of the images, T thresholds, K steps of the field's AUPRO.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuzzyclip.evaluation.metrics import FPR_LIMIT, Floats

#: Where in a bin the curve is taken to run: a certain lower bound, the estimate, an upper bound.
LOW, MIDDLE, HIGH = 0.0, 0.5, 1.0


@dataclass(frozen=True)
class Curves:
    """Counts at T descending thresholds, none above the first, all above the last.

    Attributes:
        tp: (R, T) weight of the positives above each threshold.
        fp: (R, T) weight of the negatives above each threshold.
        exact: (T - 1,) whether all scores between two thresholds are equal.
    """

    tp: Floats
    fp: Floats
    exact: NDArray[np.bool_]

    def compute_auroc(self, place: float = MIDDLE) -> Floats:
        """Area under the ROC curve, (R,)."""
        area = _measure_area(self.fp, self.tp, self.exact, place)
        return self._define(area / (self.tp[:, -1] * self.fp[:, -1]))

    def compute_average_precision(self, place: float = MIDDLE) -> Floats:
        """Average precision, (R,): positives times the precision in their bin."""
        tp, fp = self._enter_bins(place)
        precision = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=tp + fp > 0)
        return self._define(np.einsum("rt,rt->r", np.diff(self.tp), precision) / self.tp[:, -1])

    def compute_f1_max(self, place: float = MIDDLE) -> Floats:
        """Largest F1, (R,): that of the best threshold, which is its lower bound as well."""
        total = self.tp[:, -1:]
        best = (2 * self.tp / (self.tp + self.fp + total)).max(axis=1)
        if place == HIGH:
            tp, fp = self._enter_bins(HIGH)
            best = np.maximum(best, (2 * tp / (tp + fp + total)).max(axis=1))
        return self._define(best)

    def compute_aupro_std(self, pro: Floats, place: float = MIDDLE) -> Floats:
        """Area under the per-region overlap `pro` (R, T) up to FPR_LIMIT, over it, (R,)."""
        limit = FPR_LIMIT * self.fp[:, -1:]  # as a number of negatives
        beyond = (self.fp <= limit).sum(axis=1).clip(max=self.fp.shape[1] - 1)
        rows = np.arange(len(pro))
        x0, x1 = self.fp[rows, beyond - 1], self.fp[rows, beyond]
        y0, y1 = pro[rows, beyond - 1], pro[rows, beyond]
        at_limit = y0 + (y1 - y0) * (limit[:, 0] - x0) / (x1 - x0)
        cut = pro.copy()
        cut[rows, beyond] = np.where(self.exact[beyond - 1] | (place == MIDDLE), at_limit, y1)
        area = _measure_area(np.minimum(self.fp, limit), cut, self.exact, place)
        return self._define(area / limit[:, 0])

    def _enter_bins(self, place: float) -> tuple[Floats, Floats]:
        """One point of each bin, (R, T - 1): its end where exact, else by `place`."""
        tp, fp = place_curve(self.tp, place), place_curve(self.fp, 1 - place)
        ends = np.flatnonzero(self.exact)
        tp[:, ends], fp[:, ends] = self.tp[:, ends + 1], self.fp[:, ends + 1]
        return tp, fp

    def _define(self, values: Floats) -> Floats:
        """Leave values only where both classes are present."""
        return np.where((self.tp[:, -1] > 0) & (self.fp[:, -1] > 0), values, np.nan)


def place_curve(counts: Floats, place: float) -> Floats:
    """Counts (R, T) to one value a bin, (R, T - 1), from its upper (0) to its lower threshold."""
    return (1 - place) * counts[:, :-1] + place * counts[:, 1:]


def _measure_area(x: Floats, y: Floats, exact: NDArray[np.bool_], place: float) -> Floats:
    """Area under rising curves (R, T): ties slant, bounds run along a bin's lower or upper edge."""
    middle = place_curve(y, MIDDLE)
    height = middle if place == MIDDLE else np.where(exact, middle, place_curve(y, place))
    return np.asarray(np.einsum("rt,rt->r", np.diff(x), height))


class Span(NamedTuple):
    """Falling rates (K,), each known to lie from `low` to `high`; both fall as well."""

    low: Floats
    high: Floats


def bound_aupro_steps(fpr: Span, pro: Span) -> tuple[float, float, float] | None:
    """Bounds of `metrics.compute_aupro_steps` from bounds of the rates at its steps.

    Write x for the false positive rate and y for the overlap at each step, both falling, m for the
    first step with x < FPR_LIMIT and e for the last. The metric is A = N / D with
    N = sum over k from m to e - 1 of (y[k] + y[k+1]) / 2 * (x[k] - x[k+1]) and D = x[m] - x[e]:
    a mean of the pieces' heights (y[k] + y[k+1]) / 2, which fall with k, weighted by their widths.

    The largest A for one m lies at y = high, x[m] and x[e] = high, and every x between as low as
    x[e] lets it. From any possible rates, A does not fall on the way there:

    1. Raise y: its factor in N is half the widths beside it, never negative.
    2. Lower each x[k] between: its factor in N is (y[k+1] - y[k-1]) / 2, never positive, and D
       stays. It stops at x[e], so that the widths stay what they must, not negative.
    3. Raise x[m]: the first piece widens, and its height is at least the mean A.
    4. Raise x[e], and with it each x[k] that it meets: the last piece of any width narrows, and its
       height is at most the mean A.

    The smallest A mirrors this: y = low, x[m] and x[e] = low, every x between as high as x[m] lets
    it. Should D vanish at such a corner, A is still at most the first height, at least the last.
    Where m is not certain, each m that may be counts, with x[m] at most the limit.

    Args:
        fpr: of the scores strictly above each step, from the lowest step to the highest.
        pro: of the same.

    Returns:
        Lower bound, estimate and upper bound; None where the metric is certainly undefined. Where
        it may be, as when all scores share a bin, the bounds are those of the case that it is not.
    """
    bounds = [_bound_from(first, fpr, pro) for first in _list_first(fpr)]
    if not bounds:
        return None
    low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
    x, y = (fpr.low + fpr.high) / 2, (pro.low + pro.high) / 2
    kept = x < FPR_LIMIT
    x, y = x[kept], y[kept]
    if len(x) < 2 or x[0] == x[-1]:
        return low, (low + high) / 2, high
    estimate = float(np.trapezoid(y, x) / (x[-1] - x[0]))
    return low, min(max(estimate, low), high), high


def _list_first(fpr: Span) -> Iterator[int]:
    """Steps that may be the first below the limit, with another rate below theirs."""
    for step in range(len(fpr.low) - 1):
        if fpr.low[step] < FPR_LIMIT and fpr.high[step] > fpr.low[-1]:
            yield step
        if fpr.high[step] < FPR_LIMIT:  # no later step is the first
            return


def _bound_from(first: int, fpr: Span, pro: Span) -> tuple[float, float]:
    """Bounds of A where the steps from `first` on are those below the limit."""
    least, most = fpr.low[first:], np.minimum(fpr.high[first:], FPR_LIMIT)
    lower = np.concatenate([least[:1], np.minimum(most[1:-1], least[0]), least[-1:]])
    upper = np.concatenate([most[:1], np.maximum(least[1:-1], most[-1]), most[-1:]])
    below, above = (
        place_curve(pro.low[None, first:], MIDDLE)[0],
        place_curve(pro.high[None, first:], MIDDLE)[0],
    )
    width_below, width_above = lower[0] - lower[-1], upper[0] - upper[-1]
    low = -np.diff(lower) @ below / width_below if width_below else below[-1]
    high = -np.diff(upper) @ above / width_above if width_above else above[0]
    return float(low), float(high)
