"""Thresholds of image scores and of map pixels, each with what it gives and how sure that is.

An image, or a pixel, is taken for anomalous where its score reaches the threshold (score >= value).
Scores are float32, as the detector gives them: log-odds of images, probabilities of pixels. A
threshold is a float32 too, so that a comparison says the same in either precision.

A threshold holds for images like those it was chosen from, looked at in the same way: another
tiling, reference images or category need another one.

Shapes: n images, H x W pixels.
"""

from collections.abc import Iterable
from math import ceil, floor, inf

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fuzzyclip.evaluation.map_file import as_float32
from fuzzyclip.evaluation.metrics import Floats, rank
from fuzzyclip.evaluation.score_histogram import Cells, ScoreHistogram, find_scores
from fuzzyclip.evaluation.thresholds import raise_score
from fuzzyclip.model.card import Threshold

#: How sure intervals are.
CONFIDENCE = 0.95
#: A rate of 1 / 3 means a third, whatever its float is.
ROUNDING = 1e-12

Scores = NDArray[np.float32]


def choose_by_f1(scores: ArrayLike, labels: ArrayLike) -> Threshold:
    """The threshold of image scores with the largest F1, the highest one among several.

    It lies in the middle between the lowest score that reaches it and the next one below, or is
    that lowest one if there is none below. Intervals are exact ones of a binomial share (Clopper &
    Pearson, 1934); they do not know that the threshold was chosen on the same images, so that new
    ones do worse on average.

    Args:
        scores: (n,), finite.
        labels: (n,), 0 normal, 1 anomalous.

    Raises:
        ValueError: shapes differ, a score is not finite, a label is another one, or one of the two
            is missing.
    """
    given, truth = _check_scores(scores), np.asarray(labels)
    if truth.shape != given.shape:
        raise ValueError(f"{len(given)} scores and labels {truth.shape} do not belong together")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels are 0 (normal) and 1 (anomalous)")
    ranking = rank(given, truth)
    if ranking is None:
        raise ValueError(
            f"F1 needs normal and anomalous images: of {len(given)} images, {int(truth.sum())} are "
            "anomalous; with normal images alone, choose by the false alarm rate"
        )
    best = int(_compute_f1(ranking.tp, ranking.fp, ranking.positives).argmax())
    lowest = float(ranking.thresholds[best])  # that reaches the threshold
    below = float(ranking.scores[ranking.scores < lowest].max(initial=-np.inf))
    tp, fp = int(ranking.tp[best]), int(ranking.fp[best])
    return _describe_f1(_split(below, lowest), tp, fp, ranking.positives, ranking.negatives)


def choose_by_quantile(scores: ArrayLike, false_alarm_rate: float, most: float = inf) -> Threshold:
    """The lowest threshold that is expected to alarm on no more than a share of good images.

    The threshold lies just above the (n + 1 - k)-th lowest of n scores. Whatever distribution they
    have, the false alarm rate of new images then follows Beta(k, n + 1 - k), with mean k / (n + 1)
    (David & Nagaraja, Order Statistics, chapter 2); where scores are equal, it is at most that. k
    is the largest with k / (n + 1) <= `false_alarm_rate`.

    A rate below 1 / (n + 1) can not be had from n images: the threshold is then just above the
    highest score, the expected rate is 1 / (n + 1), and the note says how many images would do.

    Args:
        scores: (n,), finite, of good images that stand for those to come; not those that the model
            was trained on or remembers.
        false_alarm_rate: share of good images, between 0 and 1.
        most: what a score can be at most.

    Raises:
        ValueError: no scores, one is not finite or above `most`, or the rate is not between 0 and
            1.
    """
    given = np.sort(_check_scores(scores))
    if given[-1] > most:
        raise ValueError(f"a score of {given[-1]:g}, but {most:g} is the most there is")
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false alarm rate {false_alarm_rate}: give a share between 0 and 1")
    total = len(given)
    allowed = floor((total + 1) * false_alarm_rate * (1 + ROUNDING))
    alarms = max(allowed, 1)
    rest = total + 1 - alarms
    highest = given[rest - 1]
    notes = []
    if not allowed:
        enough = ceil(1 / false_alarm_rate * (1 - ROUNDING)) - 1
        notes.append(
            f"a false alarm rate of {false_alarm_rate:g} can not be had from {total} good images, "
            f"{enough} would do; this is the highest score"
        )
    if np.count_nonzero(given == highest) > 1:
        notes.append("several images have this very score: the rate may be lower")
    if highest == most:
        notes.append("a good image has the highest score there is: nothing reaches this threshold")
    spread = stats.beta(alarms, rest).interval(CONFIDENCE)
    return Threshold(
        value=float(raise_score(highest)),
        method="quantile",
        good=total,
        false_alarm_rate=alarms / (total + 1),
        false_alarm_interval=(float(spread[0]), float(spread[1])),
        asked_rate=float(false_alarm_rate),
        note="; ".join(notes),
    )


def choose_pixel_by_quantile(maps: Iterable[ArrayLike], false_alarm_rate: float) -> Threshold:
    """The threshold of map pixels from good images: `choose_by_quantile` of each map's highest.

    The rates are therefore of good images with any pixel that reaches the threshold, not of pixels.

    Args:
        maps: (H, W) each, in [0, 1]; sizes may differ, one is looked at at a time.
        false_alarm_rate: share of good images.

    Raises:
        ValueError: as `choose_by_quantile`, or a map is empty.
    """
    highest = []
    for anomaly_map in maps:
        given = as_float32(anomaly_map)
        if not given.size:
            raise ValueError(f"a map {given.shape} is empty")
        highest.append(float(given.max()))
    return choose_by_quantile(highest, false_alarm_rate, most=1)


class PixelCalibrator:
    """The threshold of map pixels with the largest F1, from maps and masks as they come.

    Pixels are counted in bins of `metrics.score_histogram`, 2**-14 of a score wide: memory does not
    grow with the images, and the order of images does not matter. What a threshold gives is exact;
    thresholds inside of a bin are not looked at.
    """

    def __init__(self) -> None:
        self._histogram = ScoreHistogram()
        self._images = [0, 0]  # normal, anomalous

    def add(self, anomaly_map: ArrayLike, mask: ArrayLike) -> None:
        """Take one image.

        Args:
            anomaly_map: (H, W), in [0, 1].
            mask: (H, W), true where anomalous; nowhere in a normal image.

        Raises:
            ValueError: sizes differ, a type finer than float32, or a value is not in [0, 1].
                Nothing is taken then.
        """
        given, truth = as_float32(anomaly_map), np.asarray(mask, dtype=bool)
        if given.ndim != 2 or given.shape != truth.shape:
            raise ValueError(f"map {given.shape} and mask {truth.shape} are not (H, W) alike")
        hits = given[truth]
        none = np.zeros(len(hits))  # regions do not count here
        if not ((given >= 0) & (given <= 1)).all():
            raise ValueError("map values must be numbers in [0, 1]")
        self._histogram.add(_check_scores(given.reshape(-1)), hits, none, 0)
        self._images[bool(len(hits))] += 1

    def choose(self) -> Threshold:
        """The threshold from all images so far, the highest one among several.

        Raises:
            ValueError: no pixel is anomalous, or none is normal.
        """
        cells = self._histogram.list_cells()
        positives, negatives = int(cells.positives.sum()), int(cells.negatives.sum())
        if not positives or not negatives:
            raise ValueError(
                f"F1 needs normal and anomalous pixels, there are {negatives} and {positives}; "
                "without masks, choose by the false alarm rate"
            )
        tp, fp = (
            np.cumsum(amounts[::-1], dtype=np.float64)[::-1]
            for amounts in (cells.positives, cells.negatives)
        )
        scores = _compute_f1(tp, fp, positives)
        best = int(np.flatnonzero(scores == scores.max())[-1])
        value = _split(*_find_ends(cells, best))
        counted = _describe_f1(value, int(tp[best]), int(fp[best]), positives, negatives)
        apart = {"good": self._images[0], "bad": self._images[1], "counted": "pixels"}
        without = {"false_alarm_interval": None, "miss_interval": None}
        return counted.model_copy(update=apart | without)


def _find_ends(cells: Cells, place: int) -> tuple[float, float]:
    """Highest score below a cell, 0 if there is none, and lowest score in it."""
    low = float(find_scores(cells.highest[place - 1 : place])[0]) if place else 0.0
    return low, float(find_scores(cells.lowest[place : place + 1])[0])


def _check_scores(scores: ArrayLike) -> Scores:
    """Scores (n,) as float32; see the callers for errors."""
    given = np.asarray(scores, dtype=np.float32)
    if given.ndim != 1 or not given.size:
        raise ValueError(f"scores {given.shape} must be a list of at least one")
    if not np.isfinite(given).all():
        raise ValueError("scores must be finite numbers")
    return given


def _compute_f1(tp: Floats, fp: Floats, positives: int) -> Floats:
    """F1 where tp anomalous and fp normal ones reach a threshold."""
    return 2 * tp / (tp + fp + positives)


def _split(below: float, reached: float) -> float:
    """A float32 in the middle of two, but above the lower one, where no float lies between."""
    middle = np.float32((below + reached) / 2)
    return float(middle) if middle > below else reached


def _describe_f1(value: float, tp: int, fp: int, positives: int, negatives: int) -> Threshold:
    """What a threshold gives that tp of the anomalous and fp of the normal ones reach."""
    missed = positives - tp
    return Threshold(
        value=value,
        method="f1_max",
        good=negatives,
        bad=positives,
        false_alarm_rate=fp / negatives,
        false_alarm_interval=_bound_share(fp, negatives),
        miss_rate=missed / positives,
        miss_interval=_bound_share(missed, positives),
        precision=tp / (tp + fp),
        recall=tp / positives,
        f1=2 * tp / (tp + fp + positives),
        note="chosen on the images it was counted on: new ones do worse on average",
    )


def _bound_share(hits: int, total: int) -> tuple[float, float]:
    """Exact interval of a binomial share (Clopper & Pearson, 1934)."""
    found = stats.binomtest(hits, total).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)
