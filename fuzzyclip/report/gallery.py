"""The gallery: kept images of every category as cards.

Shapes: T side of a picture.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from fuzzyclip.report.images import encode_map, encode_photo, trace_outline
from fuzzyclip.report.parts import format_score


@dataclass(frozen=True)
class Example:
    """A kept image.

    Attributes:
        path: of its file.
        category: its category.
        label: 1 anomalous.
        defect: name of the defect.
        score: FuzzyCLIP's image score.
        threshold: the category's, of the largest F1; None where a class is missing.
        kinds: of `fuzzyclip.evaluation.choice.KINDS`.
        has_mask: whether the ground truth is known.
        image: (T, T, 3).
        mask: (T, T).
        anomaly_map: (T, T).
    """

    path: str
    category: str
    label: int
    defect: str
    score: float
    threshold: float | None
    kinds: Sequence[str]
    has_mask: bool
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    anomaly_map: NDArray[np.floating]


@dataclass(frozen=True)
class Card:
    """An example as the page shows it."""

    dataset: str
    title: str
    category: str
    file: str
    path: str
    label: str
    defect: str
    kinds: Sequence[str]
    score: str
    threshold: str
    verdict: str
    truth: str
    side: int
    photo: str
    heat: str
    outline: str
    alt: str


def build_cards(dataset: str, title: str, examples: Iterable[Example]) -> list[Card]:
    """Cards of a dataset, by category, the worst first.

    Args:
        dataset: its key.
        title: its title.
        examples: kept images.
    """
    order = ("worst", "borderline", "best")
    cards = [_make_card(dataset, title, one) for one in examples]
    return sorted(
        cards, key=lambda card: (card.category, min(order.index(kind) for kind in card.kinds))
    )


def judge(example: Example) -> str:
    """What the category's threshold makes of an image, in words."""
    if example.threshold is None:
        return "no threshold"
    called = example.score >= example.threshold
    if example.label == 1:
        return "found" if called else "missed"
    return "false alarm" if called else "passed"


def _make_card(dataset: str, title: str, one: Example) -> Card:
    file, label = PurePosixPath(one.path).name, "anomalous" if one.label == 1 else "normal"
    verdict = judge(one)
    truth = "outlined" if one.mask.any() else "nothing to outline"
    return Card(
        dataset=dataset,
        title=title,
        category=one.category,
        file=file,
        path=one.path,
        label=label,
        defect=one.defect if one.label == 1 else "",
        kinds=one.kinds,
        score=format_score(one.score),
        threshold="none" if one.threshold is None else format_score(one.threshold),
        verdict=verdict,
        truth=truth if one.has_mask or one.label == 0 else "no mask",
        side=len(one.image),
        photo=encode_photo(one.image),
        heat=encode_map(one.anomaly_map),
        outline=trace_outline(one.mask),
        alt=f"{title}, {one.category}, {label} image {file}",
    )
