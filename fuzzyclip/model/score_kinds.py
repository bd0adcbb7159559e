"""What decides whether an image is anomalous: its class feature, its map, or both.

The paper's image score compares an image with two learned prompts that hold no category: a
category's name moves the map and not the decision. A score that sees the map is moved by it, and by
a defect that is too small to be seen in the image as a whole.

All are log-odds, 0 where anomalous is as likely as normal. This module imports no PyTorch.

Shapes: B images.
"""

from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

ScoreKind = Literal["class", "map", "both"]
#: The paper's, where nothing is asked for or calibrated.
DEFAULT: ScoreKind = "class"
#: What each kind is, in words.
SCORE_KINDS: dict[ScoreKind, str] = {
    "class": "the class feature against the learned prompts",
    "map": "the highest value of the map",
    "both": "the mean of the class score and the map's highest value, as log-odds",
}

Values = TypeVar("Values", "NDArray[np.floating]", "Tensor")


def judge(kind: ScoreKind, class_scores: Values, peaks: Values) -> Values:
    """Image scores (B,) from class scores (B,) and the highest log-odds of each map (B,).

    The mean of log-odds takes the two for independent experts of equal weight, and tempers their
    product so that it stays on the scale of one.
    """
    if kind == "class":
        return class_scores
    return peaks if kind == "map" else (class_scores + peaks) / 2


def check_kind(kind: str) -> ScoreKind:
    """The kind of that name; a ValueError says which there are."""
    for known in SCORE_KINDS:
        if kind == known:
            return known
    raise ValueError(f"score: {kind!r} is none of {', '.join(SCORE_KINDS)}")
