"""Which thresholds the summaries of anomaly maps keep counts at.

Shapes: N images, H x W pixels, p of them anomalous in all; G thresholds; C cells of a histogram.
"""

import numpy as np
from numpy.typing import NDArray

from fuzzyclip.evaluation.metrics import AUPRO_STEPS, Floats
from fuzzyclip.evaluation.score_histogram import Cells, ScoreHistogram, find_scores
from fuzzyclip.method.scales import Scale, place_cuts

#: Quantiles that become thresholds, of each of: positives by pixel, positives by region, negatives.
LEVELS = 400

Scores = NDArray[np.floating]


def choose_map_thresholds(
    maps: Scores, masks: NDArray[np.bool_], weights: Floats, scale: Scale = Scale.PLAIN
) -> Scores:
    """Thresholds (G,) from maps and masks (N, H, W) and region weights (p,), as they are kept.

    A bin of unequal scores then holds less than 2 / LEVELS of the positives and of the regions'
    weight, so with equal weights the bounds of AUROC and of AUPRO-std lie closer than that.
    Negatives are cut finest near the top, where AP, F1 and AUPRO are decided.
    """
    even = np.arange(LEVELS) / LEVELS
    order = np.argsort(maps[masks])
    hits, mass = maps[masks][order], np.cumsum(weights[order])
    normal = np.sort(maps[~masks])
    picked = [
        _pick(hits, even * len(hits)),
        _pick(hits, np.searchsorted(mass, even, side="right")),
        _pick(normal, np.ceil(len(normal) * (1 - even**2)) - 1),
    ]
    ends = np.array([maps.min(), maps.max()])
    curve = np.unique(np.concatenate([*picked, ends, raise_score(ends[1:])]))[::-1]
    return np.concatenate([curve, place_steps(ends, scale)])  # (G,)


def choose_thresholds(histogram: ScoreHistogram, scale: Scale = Scale.PLAIN) -> NDArray[np.float32]:
    """Thresholds (G,) as `choose_map_thresholds` has them, but between the cells of a histogram.

    A cell counts as one score: that of a quantile begins with a threshold, and that of several ends
    with one. The ends and the field's steps are those of the scores themselves. A bin between
    thresholds holds less than 2 / LEVELS of the positives, or else one cell.

    Raises:
        ValueError: the histogram is empty.
    """
    even = np.arange(LEVELS) / LEVELS
    ends = np.array(histogram.ends, dtype=np.float32)
    cells = histogram.list_cells()
    normal = cells.negatives.sum()
    picked = [
        _pick_cells(cells, cells.positives, even * cells.positives.sum()),
        _pick_cells(cells, cells.coverage, even * histogram.regions),
        _pick_cells(cells, cells.negatives, np.ceil(normal * (1 - even**2)) - 1),
    ]
    curve = np.unique(np.concatenate([*picked, ends, raise_score(ends[1:])]))[::-1]
    return np.concatenate([curve, place_steps(ends, scale)])  # (G,)


def place_steps(ends: Scores, scale: Scale = Scale.PLAIN) -> Scores:
    """The field's equal steps, (AUPRO_STEPS,), as thresholds of the scores' type.

    Args:
        ends: lowest and highest score, (2,).
        scale: of the scores; steps are equal on the plain one.

    Returns:
        Smallest number of the type above each step: a score exceeds the step where it reaches this.
    """
    cuts = place_cuts(float(ends[0]), float(ends[1]), AUPRO_STEPS, scale)
    steps = cuts.astype(ends.dtype)
    return np.where(steps <= cuts, raise_score(steps), steps)


def _pick(ordered: Scores, places: NDArray[np.generic]) -> Scores:
    """Scores at some places; one met twice fills a bin of its own, closed by the next number."""
    if not len(ordered):
        return ordered
    values, times = np.unique(ordered[places.astype(np.int64)], return_counts=True)
    return np.concatenate([values, raise_score(values[times > 1])])


def _pick_cells(
    cells: Cells, amounts: NDArray[np.int64] | Floats, places: Floats
) -> NDArray[np.float32]:
    """As `_pick`, of the cells where the running sum of amounts (C,) first exceeds the places."""
    if not amounts.any():
        return np.empty(0, dtype=np.float32)
    found = np.searchsorted(np.cumsum(amounts), places, side="right")
    met, times = np.unique(found, return_counts=True)
    ends = cells.highest[met[times > 1]] + 1
    return find_scores(np.concatenate([cells.lowest[met], ends]))


def raise_score(values: Scores) -> Scores:
    """The next larger number of the same type; infinity follows the largest."""
    with np.errstate(over="ignore"):
        return np.nextafter(values, values.dtype.type(np.inf))
