"""The field's seven metrics, exact, from one sort of the scores.

Every curve of a binary ranking changes its height only at the scores of positives, which are few
among the pixels: sort all scores, sort the positives with their region weights, and look the latter
up in the former; what is not a positive is a negative. AUROC, AP, F1-max and both forms of AUPRO
follow, ties included.

All values are fractions in [0, 1]; a metric that the labels do not define (one class only) is
absent from the result, never 0 or 0.5.

Shapes: N images, H x W pixels, p positives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.special import expit, logit

from fuzzyclip.method import Scale

#: Both forms of AUPRO look at false positive rates up to here.
FPR_LIMIT = 0.3
#: Thresholds of the form that the field prints.
AUPRO_STEPS = 200
#: Regions touch at corners too, as in the code of the field.
EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)

#: Share of image scores that may tie at an end of their scale before results say so.
TIED_SHARE = 0.01

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro", "pixel_aupro_std")
METRICS = (*PIXEL_METRICS, *IMAGE_METRICS)

Floats = NDArray[np.float64]


Maps = NDArray[np.float32]
#: Maps as metrics take them: log-odds of sums are float64, see `fuzzyclip.method.efa.join_planes`.
FineMaps = NDArray[np.floating]


@dataclass(frozen=True)
class Ranking:
    """Positives against negatives, at each distinct positive score, from high to low.

    Attributes:
        thresholds: distinct scores of positives, descending.
        tp: positives with a score >= threshold.
        fp: negatives with a score >= threshold.
        fp_above: negatives with a score > threshold; differs from `fp` by ties.
        coverage: region weight of the positives with a score >= threshold.
        positives: number of positives.
        negatives: number of negatives.
        scores: all scores, sorted.
    """

    thresholds: Floats
    tp: Floats
    fp: Floats
    fp_above: Floats
    coverage: Floats
    positives: int
    negatives: int
    scores: NDArray[np.floating]


def as_floats(maps: ArrayLike) -> FineMaps:
    """Maps of any shape as float64 where they are that, else as `as_float32` gives them."""
    given = np.asarray(maps)
    if given.dtype != np.float64:
        return as_float32(given)
    if not np.isfinite(given).all():
        raise ValueError("maps hold values that are not finite")
    return given


def as_float32(maps: ArrayLike) -> Maps:
    """Maps of any shape in the type that is kept, without a change of any score.

    Raises:
        ValueError: the scores' type is finer than float32, or a score is not finite.
    """
    given = np.asarray(maps)
    if not np.can_cast(given.dtype, np.float32):
        raise ValueError(f"maps of {given.dtype} would be rounded: convert them to float32 first")
    if not np.isfinite(given).all():
        raise ValueError("maps hold values that are not finite")
    return given.astype(np.float32, copy=False)


def rank(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Ranking | None:
    """Sort once what every metric needs; None when one of the two classes is missing.

    Args:
        scores: any shape; higher means more anomalous.
        labels: same shape, true for positives.
        weights: region weight of each positive, in the order of `scores[labels]`; default 1 / p.

    Raises:
        ValueError: shapes differ or a score is not finite.
    """
    score = np.asarray(scores)
    positive = np.asarray(labels, dtype=bool)
    if score.shape != positive.shape:
        raise ValueError(f"scores {score.shape} and labels {positive.shape} differ in shape")
    hits = score[positive]
    if weights is None:
        weights = np.full(len(hits), 1 / max(len(hits), 1))
    return rank_in_place(score.flatten(), hits, np.asarray(weights))


def rank_in_place(
    scores: NDArray[np.floating], hits: NDArray[np.floating], weights: Floats
) -> Ranking | None:
    """As `rank`, but of scores apart from their labels, and without a copy of the scores.

    Args:
        scores: (n,), of both classes in any order; sorted here, and kept by the ranking.
        hits: (p,), those of positives.
        weights: (p,), region weight of each hit.

    Raises:
        ValueError: a score is not finite.
    """
    scores.sort()
    if scores.size and not np.isfinite(scores[[0, -1]]).all():  # what is not finite sorts to an end
        raise ValueError("scores hold values that are not finite")
    negatives = scores.size - len(hits)
    if not len(hits) or not negatives:
        return None
    order = np.argsort(-hits, kind="stable")
    hits, covered = hits[order], np.cumsum(weights[order])
    last = np.append(np.flatnonzero(np.diff(hits)), len(hits) - 1)  # last of each run of equals
    thresholds, tp = hits[last], last + 1
    reached = scores.size - np.searchsorted(scores, thresholds, side="left")  # of either class
    exceeded = scores.size - np.searchsorted(scores, thresholds, side="right")
    return Ranking(
        thresholds=thresholds.astype(np.float64),
        tp=tp.astype(np.float64),
        fp=(reached - tp).astype(np.float64),
        fp_above=(exceeded - np.append(0, tp[:-1])).astype(np.float64),
        coverage=covered[last],
        positives=len(hits),
        negatives=negatives,
        scores=scores,
    )


def compute_auroc(ranking: Ranking) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties half."""
    new = np.diff(ranking.tp, prepend=0.0)  # positives at each threshold
    beaten = ranking.negatives - (ranking.fp + ranking.fp_above) / 2
    return float((new * beaten).sum() / (ranking.positives * ranking.negatives))


def compute_average_precision(ranking: Ranking) -> float:
    """Average precision, the step-wise sum of scikit-learn's `average_precision_score`."""
    new = np.diff(ranking.tp, prepend=0.0)
    return float((new * ranking.tp / (ranking.tp + ranking.fp)).sum() / ranking.positives)


def compute_f1_max(ranking: Ranking) -> float:
    """Largest F1 over all thresholds; it lies at a positive's score."""
    return float((2 * ranking.tp / (ranking.tp + ranking.fp + ranking.positives)).max())


def find_threshold(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """The image score (N,) from which on "anomalous" has the largest F1, the highest of equals.

    It is the score of an anomalous image; None where one of the two classes is missing.
    """
    ranking = rank(scores, labels)
    if ranking is None:
        return None
    f1 = 2 * ranking.tp / (ranking.tp + ranking.fp + ranking.positives)
    return float(ranking.thresholds[f1.argmax()])


def compute_aupro_std(ranking: Ranking, limit: float = FPR_LIMIT) -> float:
    """Exact area under per-region overlap against false positive rate, up to `limit`, over it.

    The curve runs flat where only negatives fall and slants where both fall together.
    """
    total = ranking.negatives
    before = np.concatenate(([0.0], ranking.coverage[:-1]))
    fpr = np.stack((ranking.fp_above, ranking.fp), axis=1).ravel() / total
    pro = np.stack((before, ranking.coverage), axis=1).ravel()
    fpr, pro = np.append(fpr, 1.0), np.append(pro, ranking.coverage[-1])
    fpr, pro = np.insert(fpr, 0, 0.0), np.insert(pro, 0, 0.0)
    inside = int(np.searchsorted(fpr, limit, side="right"))  # first vertex beyond the limit
    x0, x1, y0, y1 = fpr[inside - 1], fpr[inside], pro[inside - 1], pro[inside]
    at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
    x, y = np.append(fpr[:inside], limit), np.append(pro[:inside], at_limit)
    return float(np.trapezoid(y, x) / limit)


def compute_aupro_steps(
    ranking: Ranking,
    steps: int = AUPRO_STEPS,
    limit: float = FPR_LIMIT,
    scale: Scale = Scale.PLAIN,
) -> float | None:
    """AUPRO as the field's tables print it: equal threshold steps and a stretched axis.

    `steps` thresholds rise evenly from the lowest score towards the highest; the false positive
    rates below `limit` are stretched to [0, 1] before the trapezoid area is taken. The value is
    therefore not area / limit, and it changes under a monotone map of the scores: scores of another
    scale are cut where the plain ones would be. None when fewer than two thresholds fall below the
    limit.
    """
    cuts = place_cuts(float(ranking.scores[0]), float(ranking.scores[-1]), steps, scale)
    above = np.searchsorted(-ranking.thresholds, -cuts, side="left")  # thresholds > cut
    exceeded = count_above(ranking.scores, cuts)
    fpr = (exceeded - np.append(0.0, ranking.tp)[above]) / ranking.negatives
    pro = np.concatenate(([0.0], ranking.coverage))[above]
    kept = fpr < limit
    fpr, pro = fpr[kept], pro[kept]
    if len(fpr) < 2 or fpr.max() == fpr.min():
        return None
    x = (fpr - fpr.min()) / (fpr.max() - fpr.min())
    return float(abs(np.trapezoid(pro, x)))


def place_cuts(low: float, high: float, steps: int, scale: Scale) -> NDArray[np.float64]:
    """Cuts (steps,) from the lowest value towards the highest, which is none of them.

    Values and cuts are of a scale; the steps are equal ones of the plain scale.
    """
    first, last = (low, high) if scale is Scale.PLAIN else expit([low, high])
    cuts = first + (last - first) / steps * np.arange(steps)
    if scale is Scale.LOG_ODDS:
        cuts = np.clip(logit(cuts), low, high)  # on the way to and fro they may leave this range
        cuts[0] = low
    return np.asarray(cuts, dtype=np.float64)


def count_above(ordered: NDArray[np.floating], cuts: NDArray[np.floating]) -> NDArray[np.int64]:
    """Number of sorted scores above each cut, exact, without a copy of them in the cuts' type.

    A cut that rounds up to a score's type has no score between itself and the rounded one, so that
    what exceeds it starts there; one that rounds down has none either, so that it starts above.
    """
    near = cuts.astype(ordered.dtype)
    first = np.searchsorted(ordered, near, side="left")
    beyond = np.searchsorted(ordered, near, side="right")
    counts: NDArray[np.int64] = len(ordered) - np.where(near > cuts, first, beyond)
    return counts


def weigh_regions(masks: ArrayLike) -> Floats:
    """Weight of each anomalous pixel, 1 / (its region's area x number of regions).

    Args:
        masks: (N, H, W), true where anomalous; regions are 8-connected within an image.

    Returns:
        (p,), in the order of `masks[masks]`; its sum over pixels above a threshold is the mean
        covered fraction of the regions.
    """
    pieces, count = [], 0
    for mask in np.asarray(masks, dtype=bool):
        piece, regions = weigh_mask(mask)
        pieces.append(piece)
        count += regions
    return join_weights(pieces, count)


def weigh_mask(mask: NDArray[np.bool_]) -> tuple[Floats, int]:
    """Of one mask (H, W): 1 / region's area of each anomalous pixel (p,), and how many regions."""
    if not mask.any():
        return np.empty(0), 0
    regions, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
    return 1.0 / np.bincount(regions.ravel())[regions[mask]], int(count)


def join_weights(pieces: Sequence[Floats], regions: int) -> Floats:
    """Weights (p,) that sum to 1, from each image's of `weigh_mask` and all their regions."""
    return np.concatenate(pieces) / max(regions, 1) if pieces else np.empty(0)


def compute_image_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """AUROC, AP and F1-max of image scores (N,) against labels (N,)."""
    ranking = rank(scores, labels)
    if ranking is None:
        return {}
    return {
        "image_auroc": compute_auroc(ranking),
        "image_ap": compute_average_precision(ranking),
        "image_f1_max": compute_f1_max(ranking),
    }


def count_tied_ends(scores: ArrayLike) -> int:
    """Number of scores (N,) that share the lowest or the highest value with another.

    Where the scale of a method ends, its scores pile up: they can not be ranked among themselves,
    and a metric says less than it seems to.
    """
    given = np.asarray(scores)
    if not given.size:
        return 0
    piles = [int(np.count_nonzero(given == end)) for end in {given.min(), given.max()}]
    return sum(pile for pile in piles if pile > 1)


def compute_pixel_metrics(
    maps: ArrayLike, masks: ArrayLike, scale: Scale = Scale.PLAIN
) -> dict[str, float]:
    """AUROC, AP, F1-max and both AUPRO of anomaly maps (N, H, W) against masks (N, H, W)."""
    masks = np.asarray(masks, dtype=bool)
    return compute_ranking_metrics(rank(maps, masks, weigh_regions(masks)), scale)


def compute_ranking_metrics(
    ranking: Ranking | None, scale: Scale = Scale.PLAIN
) -> dict[str, float]:
    """The pixel metrics of a ranking of pixels; none without one."""
    if ranking is None:
        return {}
    values = {
        "pixel_auroc": compute_auroc(ranking),
        "pixel_ap": compute_average_precision(ranking),
        "pixel_f1_max": compute_f1_max(ranking),
        "pixel_aupro_std": compute_aupro_std(ranking),
    }
    stepped = compute_aupro_steps(ranking, scale=scale)
    return values if stepped is None else values | {"pixel_aupro": stepped}


def average_categories(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Unweighted mean over categories of each metric, over those categories that have it."""
    means = {}
    for metric in METRICS:
        values = [row[metric] for row in rows.values() if metric in row]
        if values:
            means[metric] = float(np.mean(values))
    return means
