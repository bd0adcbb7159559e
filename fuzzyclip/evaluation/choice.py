"""Which images of a category a gallery shows: the clearest, the largest mistakes, the borderline.

The threshold is the one of the largest F1. It is chosen on the tested images themselves, as the
field's F1-max is: it sorts pictures, and says nothing of how a threshold fixed in advance would do.

Shapes: N images of a category.
"""

import numpy as np
from numpy.typing import ArrayLike

from fuzzyclip.evaluation.metrics import rank

#: What an image is kept as; one may be several.
KINDS = ("best", "worst", "borderline")


def find_threshold(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """The score from which on "anomalous" has the largest F1, the highest one of equals.

    Args:
        scores: (N,), higher is more anomalous.
        labels: (N,), 1 anomalous.

    Returns:
        A score of an anomalous image; None where one of the two classes is missing.
    """
    ranking = rank(scores, labels)
    if ranking is None:
        return None
    f1 = 2 * ranking.tp / (ranking.tp + ranking.fp + ranking.positives)
    return float(ranking.thresholds[f1.argmax()])


def choose_examples(scores: ArrayLike, labels: ArrayLike, count: int) -> dict[int, tuple[str, ...]]:
    """Images to show of a category, with what each is shown as.

    Worst are mistakes at `find_threshold` alone, the furthest on the wrong side first: a category
    without mistakes has none. Best are the furthest on the right side. Borderline are the nearest
    to the threshold on either side. Without a threshold no image is a known mistake: worst is then
    the normal image with the highest score, or the anomalous one with the lowest, and none is
    borderline.

    Args:
        scores: (N,), higher is more anomalous.
        labels: (N,), 1 anomalous.
        count: of each kind and label, at most.

    Returns:
        Place of the image -> its kinds, ascending by place.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels) == 1
    threshold = find_threshold(values, truth)
    wrong = np.zeros(len(values), dtype=bool)
    if threshold is not None:
        wrong = (values >= threshold) != truth
    chosen: dict[int, list[str]] = {}
    for label in (False, True):
        rows = np.flatnonzero(truth == label)
        clear = rows[np.argsort(-values[rows] if label else values[rows], kind="stable")]
        unclear = rows[np.argsort(values[rows] if label else -values[rows], kind="stable")]
        found = {
            "best": clear[~wrong[clear]],
            "worst": unclear if threshold is None else unclear[wrong[unclear]],
            "borderline": rows[:0]
            if threshold is None
            else rows[np.argsort(np.abs(values[rows] - threshold), kind="stable")],
        }
        for kind in KINDS:
            for row in found[kind][:count]:
                chosen.setdefault(int(row), []).append(kind)
    return {row: tuple(chosen[row]) for row in sorted(chosen)}
