"""How well image scores tell anomalous from normal images: in a number, in words, in a picture.

A threshold is worth no more than the scores it divides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fuzzyclip.evaluation.metrics import compute_auroc, rank

#: AUROC below which scores are of hardly any use, whatever the number of images; 0.5 is chance.
USEFUL_AUROC = 0.6
#: Chance of an AUROC like this or higher from scores that know nothing, from which on it tells
#: nothing.
DOUBTFUL = 0.05
#: Lines of a histogram, and characters of its longest bar.
LINES, BAR = 12, 24


@dataclass(frozen=True)
class Separation:
    """Scores of normal and anomalous images side by side.

    Attributes:
        normal, anomalous: scores, (n,) and (p,).
        auroc: chance that an anomalous image scores higher than a normal one, ties half; None where
            one of the two is missing.
        by_chance: how likely such an AUROC or a higher one is from scores that know nothing
            (Mann & Whitney, 1947).
    """

    normal: NDArray[np.float32]
    anomalous: NDArray[np.float32]
    auroc: float | None = None
    by_chance: float = 1.0

    @property
    def doubt(self) -> str:
        """What is to be said against the scores; empty where they are of use."""
        if self.auroc is None:
            return ""
        if self.auroc < USEFUL_AUROC:
            return "hardly better than chance" if self.auroc >= 0.5 else "no better than chance"
        return "too few images to tell it from chance" if self.by_chance > DOUBTFUL else ""


def measure_separation(scores: Sequence[float], labels: Sequence[int]) -> Separation:
    """The separation of finite scores (n,) by labels (n,), 0 normal and 1 anomalous."""
    given, truth = np.asarray(scores, dtype=np.float32), np.asarray(labels, dtype=bool)
    ranking = rank(given, truth)
    if ranking is None:
        return Separation(given[~truth], given[truth])
    test = stats.mannwhitneyu(given[truth], given[~truth], alternative="greater")
    return Separation(given[~truth], given[truth], compute_auroc(ranking), float(test.pvalue))


def draw_histogram(separation: Separation, threshold: float) -> list[str]:
    """Scores as lines of text, from low to high, with a line where the threshold is.

    Bins are equally wide and begin at the threshold, so that no bar lies on both sides of it. A bar
    has a character an image where there is room, else it is to scale.
    """
    sides = separation.normal, separation.anomalous
    together = np.concatenate(sides).astype(np.float64)
    width = float(np.ptp(np.append(together, threshold))) / (LINES - 1) or 1.0
    places = [np.floor((side.astype(np.float64) - threshold) / width).astype(int) for side in sides]
    for side, place in zip(sides, places, strict=True):  # rounding must not move one across
        place[side >= np.float32(threshold)] = np.maximum(place[side >= np.float32(threshold)], 0)
        place[side < np.float32(threshold)] = np.minimum(place[side < np.float32(threshold)], -1)
    low, high = min(map(int, map(_find_low, places))), max(map(int, map(_find_high, places)))
    counts = [np.bincount(place - low, minlength=high - low + 1) for place in places]
    per_image = min(1.0, BAR / max(int(count.max(initial=1)) for count in counts))
    decimals = max(2, floor(-log10(width)) + 1)  # no two bins are called alike
    labels = [f"{threshold + number * width:+9.{decimals}f}" for number in range(low, high + 1)]
    wide = max(map(len, labels))
    lines = [f"{'score':>{wide}}  {f'{len(sides[0])} normal':{BAR + 6}}  {len(sides[1])} anomalous"]
    for number, label in enumerate(labels, low):
        if number == 0:
            lines.append(f"{label:>{wide}}  {'- ' * (BAR + 4)}threshold")
        bars = [_draw_bar(int(count[number - low]), per_image) for count in counts]
        lines.append(f"{label:>{wide}}  {bars[0]:{BAR + 6}}  {bars[1]}".rstrip())
    return lines


def _find_low(places: NDArray[np.int_]) -> int:
    """The lowest bin, at most the one below the threshold."""
    return int(places.min(initial=-1))


def _find_high(places: NDArray[np.int_]) -> int:
    """The highest bin, at least the one that begins at the threshold."""
    return int(places.max(initial=0))


def _draw_bar(count: int, per_image: float) -> str:
    return f"{'#' * ceil(count * per_image)} {count}" if count else ""


def to_percent(share: float) -> str:
    """A share as people read it: `5 %`, `0.3 %`, never a rounded `0 %` or `100 %`."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "under 0.1 %"
    if 99.9 < percent < 100:
        return "over 99.9 %"
    rounded = percent if percent < 10 or percent > 90 else floor(percent + 0.5)
    return f"{rounded:.1f}".removesuffix(".0") + " %"
