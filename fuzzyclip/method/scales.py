"""What the values of an anomaly map are, where a metric asks for more than their order.

A probability near 1 leaves a float32 few steps: from a margin of 17 on it is 1, whatever the margin
is, and pixels that a map tells apart become one. Maps of probabilities are therefore kept as
log-odds, which are precise at both ends. Only the 200 equal steps of the field's AUPRO depend on
the scale; they stay equal steps of the probability.
"""

from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit


class Scale(Enum):
    """PLAIN: values as the method defines them. LOG_ODDS: log(p / (1 - p)) of a probability p."""

    PLAIN = "plain"
    LOG_ODDS = "log-odds"


def place_cuts(low: float, high: float, steps: int, scale: Scale) -> NDArray[np.float64]:
    """Cuts (steps,) from the lowest value towards the highest, in equal steps of the plain scale.

    Args:
        low: lowest value of all maps.
        high: highest value.
        steps: how many; the highest value itself is none of them.
        scale: of the values, and of the cuts.
    """
    first, last = (low, high) if scale is Scale.PLAIN else expit([low, high])
    cuts = first + (last - first) / steps * np.arange(steps)
    if scale is Scale.LOG_ODDS:
        cuts = np.clip(logit(cuts), low, high)  # on the way to and fro they may leave this range
        cuts[0] = low
    return np.asarray(cuts, dtype=np.float64)
